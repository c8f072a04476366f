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

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

// Half as many vectors with the same sums: of two vectors whose sums lie in runs of lanes, one with runs half as long.
template <int RUN>
inline Floats fold(Floats a, Floats b) {
    if (RUN == 16)
        return SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    if (RUN == 8)
        return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
               SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    if (RUN == 4)
        return SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
               SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
    return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

// Lane i of the result is the sum of the lanes of v[i], each in the same order.
inline Floats sums_of(const Floats (&v)[16]) {
    Floats eight[8], four[4], two[2];
    for (int i = 0; i < 8; i++) eight[i] = fold<16>(v[2 * i], v[2 * i + 1]);
    for (int i = 0; i < 4; i++) four[i] = fold<8>(eight[2 * i], eight[2 * i + 1]);
    for (int i = 0; i < 2; i++) two[i] = fold<4>(four[2 * i], four[2 * i + 1]);
    return fold<2>(two[0], two[1]);
}

// Sum of the lanes, in one fixed order.
inline float sum(Floats v) { return fold<2>(fold<4>(fold<8>(fold<16>(v, v), v), v), v)[0]; }

inline float largest(Floats v) {
    v = larger(v, SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    v = larger(v, SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3));
    v = larger(v, SHUFFLE(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1));
    return v[0] > v[1] ? v[0] : v[1];
}

inline int sum(Ints v) {  // exact in any order
    v += SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
    v += SHUFFLE(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
    return v[0] + v[1];
}

typedef int8_t Bytes __attribute__((vector_size(16)));
inline Bytes narrowed(Ints v) {  // numbers that fit
#if defined(__AVX512F__)
    return (Bytes)_mm512_cvtepi32_epi8((__m512i)v);
#else
    return __builtin_convertvector(v, Bytes);
#endif
}

inline Floats nearest(Floats x) {  // to a whole number, ties to even, for |x| < 2^22
    const Floats magic = splat(12582912.0f);
    return (x + magic) - magic;
}

// e^x to about 1 unit in the last place; 0 below -87, and NaN stays NaN.
inline Floats exponential(Floats x) {
    const Floats low = splat(-87.0f), high = splat(88.0f);
    Floats in = x < low ? low : x;
    in = in > high ? high : in;
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

inline Floats rounded_to_bfloat(Floats v) {  // as float_to_bfloat rounds
    Ints bits = (Ints)v;
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & int32_t(0xffff0000);
    return v != v ? splat(__builtin_nanf("")) : (Floats)bits;
}

inline void store(uint16_t* p, Floats v) {
#if defined(__AVX512F__)
    Ints high = (Ints)rounded_to_bfloat(v) >> 16;
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)high));
#else
    for (int i = 0; i < LANES; i++) p[i] = float_to_bfloat(v[i]);
#endif
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
