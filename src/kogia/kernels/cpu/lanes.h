// Sixteen numbers at a time, for any CPU: GCC's and Clang's vector types become AVX-512, two AVX2 halves, or whatever
// there is. Every rounding is written out (the build forbids the compiler to fuse or reorder), so that a number does
// not depend on which of several instances of a loop computed it.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));

inline Floats splat(float x) { return Floats{} + x; }

inline Floats load(const float* p) {
    Floats v;
    memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }

// a * b + c, rounded once.
inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    Floats out;
    for (int i = 0; i < LANES; i++) out[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return out;
#endif
}

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline Floats magnitude(Floats a) { return (Floats)((Ints)a & 0x7fffffff); }

// Sum of the lanes, in one fixed order.
inline float sum(Floats v) {
    float half[8];
    for (int i = 0; i < 8; i++) half[i] = v[i] + v[i + 8];
    for (int i = 0; i < 4; i++) half[i] = half[i] + half[i + 4];
    return (half[0] + half[2]) + (half[1] + half[3]);
}

inline float largest(Floats v) {
    float top = v[0];
    for (int i = 1; i < LANES; i++) top = v[i] > top ? v[i] : top;
    return top;
}

inline Floats nearest(Floats x) {  // to a whole number, ties to even, for |x| < 2^22
    const Floats magic = splat(12582912.0f);
    return (x + magic) - magic;
}

// e^x to about 1 unit in the last place; 0 below -87, and NaN stays NaN.
inline Floats exponential(Floats x) {
    const Floats low = splat(-87.0f), high = splat(88.0f);
    Floats in = x < low ? low : (x > high ? high : x);
    Floats n = nearest(in * splat(1.44269504f));
    Floats r = fma(n, splat(-0.693359375f), in);
    r = fma(n, splat(2.12194440e-4f), r);
    Floats p = splat(1.9875691500e-4f);
    p = fma(p, r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, r * r, r + splat(1.0f));
    Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    Floats y = p * (Floats)power;
    return x < low ? splat(0.0f) : y;
}

inline float bfloat_to_float(uint16_t h) {
    uint32_t bits = uint32_t(h) << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Round to nearest even; NaN stays NaN.
inline uint16_t float_to_bfloat(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline Floats load(const uint16_t* p) {  // sixteen BF16 numbers
#if defined(__AVX512F__)
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return (Floats)_mm512_slli_epi32(wide, 16);
#else
    typedef uint16_t Shorts __attribute__((vector_size(32)));
    typedef uint32_t Words __attribute__((vector_size(64)));
    Shorts narrow;
    memcpy(&narrow, p, sizeof narrow);
    return (Floats)(__builtin_convertvector(narrow, Words) << 16);
#endif
}

inline void store(uint16_t* p, Floats v) {
    for (int i = 0; i < LANES; i++) p[i] = float_to_bfloat(v[i]);
}

inline Floats load_halves(const uint16_t* p) {  // sixteen FP16 numbers
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#else
    Floats out;
    for (int i = 0; i < LANES; i++) {
        _Float16 h;
        memcpy(&h, p + i, 2);
        out[i] = float(h);
    }
    return out;
#endif
}

inline uint16_t float_to_half(float x) {
    _Float16 h = (_Float16)x;
    uint16_t bits;
    memcpy(&bits, &h, 2);
    return bits;
}

inline float half_to_float(uint16_t bits) {
    _Float16 h;
    memcpy(&h, &bits, 2);
    return float(h);
}
