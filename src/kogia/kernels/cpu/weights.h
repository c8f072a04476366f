// How matrices lie in memory, and the four inner loops that multiply with them.
//
// A matrix of O outputs and I inputs is cut into panels of 16 outputs. A panel holds its numbers in the order in which
// they are used: all 16 outputs of input 0 (in pairs for BF16, in fours for integers), then of input 1, and so on; one
// lane is one output. So a lane adds up its products in the order of the inputs, whatever the number of rows, and the
// result of a row does not depend on its neighbours: that is where "the same tokens at any batch size" comes from.
//
// FLOAT32   16 floats an input
// BFLOAT16  16 pairs of BF16 for two inputs
// INT8      groups of 32 inputs: 16 FP16 scales, then 8 x 64 codes u in 1..255; weight = scale * (u - 128)
// INT4      groups of 32 inputs: 16 FP16 scales, 16 FP16 minima, then 4 x 64 bytes, the first four inputs of eight in
//           the low halves; weight = scale * u + minimum, u in 0..15
//
// Activations are prepared once for all panels: rounded to BF16, or to int8 with one scale for 32 inputs. A prepared row
// is a list of 4-byte words (a float, two BF16, four codes), so that the rows of a tile can be interleaved word by word.
#pragma once
#include "lanes.h"

enum Format { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };
constexpr int GROUP = 32;  // inputs that share a scale; every row and panel is padded to whole groups with zeros
constexpr int GROUP_WORDS = GROUP / 4 + 3;  // codes, scale, sum of the scaled codes, -128 times the sum of the codes

inline int padded(int n, int to) { return (n + to - 1) / to * to; }
inline int groups_of(int inputs) { return padded(inputs, GROUP) / GROUP; }
inline int row_words(int format, int inputs) {
    const int of_group[] = {GROUP, GROUP / 2, GROUP_WORDS, GROUP_WORDS};
    return groups_of(inputs) * of_group[format];
}
inline int64_t panel_bytes(int format, int inputs) {
    const int64_t of_group[] = {GROUP * 64, GROUP * 32, 32 + 512, 64 + 256};
    return groups_of(inputs) * of_group[format];
}

typedef uint32_t Word;
inline float as_float(const Word* word) {
    float x;
    memcpy(&x, word, 4);
    return x;
}

// Four unsigned codes of each lane times four signed ones of the row, added to `sums`: exact.
inline Ints dot_fours(Ints sums, const uint8_t* codes64, const Word* word) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, _mm512_loadu_si512(codes64), _mm512_set1_epi32(int(*word)));
#elif defined(__AVX2__)
    const __m256i x = _mm256_cvtepi8_epi16(_mm_set1_epi32(int(*word)));  // as 16-bit numbers, four times over
    __m256i part[2];
    memcpy(part, &sums, 64);
    for (int half = 0; half < 2; half++) {
        __m256i pair[2];
        for (int q = 0; q < 2; q++) {
            __m128i bytes = _mm_loadu_si128((const __m128i*)(codes64 + 32 * half + 16 * q));
            pair[q] = _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), x);
        }
        __m256i added = _mm256_permute4x64_epi64(_mm256_hadd_epi32(pair[0], pair[1]), 0xd8);
        part[half] = _mm256_add_epi32(part[half], added);
    }
    memcpy(&sums, part, 64);
    return sums;
#else
    const int8_t* four = (const int8_t*)word;
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++) sums[lane] += int(codes64[4 * lane + i]) * int(four[i]);
    return sums;
#endif
}

// Two BF16 products of each lane, added to `sums`.
inline Floats dot_pairs(Floats sums, const uint16_t* pairs32, const Word* word) {
#if defined(__AVX512BF16__)
    __m512i x = _mm512_set1_epi32(int(*word));
    return (Floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_loadu_si512(pairs32), (__m512bh)x);
#else
    Ints both;
    memcpy(&both, pairs32, 64);
    sums = fma((Floats)(both << 16), splat(bfloat_to_float(uint16_t(*word))), sums);
    return fma((Floats)(both & int32_t(0xffff0000)), splat(bfloat_to_float(uint16_t(*word >> 16))), sums);
#endif
}

// The inner loops: a tile of R interleaved rows times P neighbouring panels (`stride` bytes apart) -> R x P x 16 sums.
// R and P only decide how many numbers are kept in registers; they change no result.

template <int R, int P>
inline void multiply_float32(const char* panel, int64_t stride, const Word* x, int inputs, Floats (&out)[R][P]) {
    for (int i = 0; i < padded(inputs, GROUP); i++, x += R)
        for (int p = 0; p < P; p++) {
            Floats w = load((const float*)(panel + p * stride) + 16 * i);
            for (int r = 0; r < R; r++) out[r][p] = fma(w, splat(as_float(x + r)), out[r][p]);
        }
}

template <int R, int P>
inline void multiply_bfloat16(const char* panel, int64_t stride, const Word* x, int inputs, Floats (&out)[R][P]) {
    for (int i = 0; i < padded(inputs, GROUP); i += 2, x += R)
        for (int p = 0; p < P; p++) {
            const uint16_t* w = (const uint16_t*)(panel + p * stride) + 16 * i;
            for (int r = 0; r < R; r++) out[r][p] = dot_pairs(out[r][p], w, x + r);
        }
}

// Sums of integers are exact in any order, so a few rows may keep two chains of them going.
constexpr int chains(int rows) { return rows <= 2 ? 2 : 1; }

template <int R>
inline void multiply_int8(const char* panel, const Word* x, int groups, Floats (&out)[R]) {
    constexpr int C = chains(R);
    for (int g = 0; g < groups; g++, panel += 32 + 512, x += GROUP_WORDS * R) {
        const Word *scale = x + 8 * R, *offset = x + 10 * R;
        Ints sums[R][C] = {};
        for (int r = 0; r < R; r++) sums[r][0] = Ints{} + int(offset[r]);
        for (int i = 0; i < 8; i++)
            for (int r = 0; r < R; r++)
                sums[r][i % C] = dot_fours(sums[r][i % C], (const uint8_t*)panel + 32 + 64 * i, x + i * R + r);
        Floats of_weights = load_halves((const uint16_t*)panel);
        for (int r = 0; r < R; r++) {
            Floats exact = __builtin_convertvector(C == 2 ? sums[r][0] + sums[r][C - 1] : sums[r][0], Floats);
            out[r] = fma(of_weights, exact * splat(as_float(scale + r)), out[r]);
        }
    }
}

template <int R>
inline void multiply_int4(const char* panel, const Word* x, int groups, Floats (&out)[R]) {
    constexpr int C = chains(R);
    for (int g = 0; g < groups; g++, panel += 64 + 256, x += GROUP_WORDS * R) {
        const Word *scale = x + 8 * R, *sum = x + 9 * R;
        Ints sums[R][C] = {};
        for (int i = 0; i < 8; i += 2) {
            Ints both;
            memcpy(&both, panel + 64 + 32 * i, 64);
            Ints low = both & 0x0f0f0f0f, high = (both >> 4) & 0x0f0f0f0f;
            for (int r = 0; r < R; r++) {
                sums[r][0] = dot_fours(sums[r][0], (const uint8_t*)&low, x + i * R + r);
                sums[r][C - 1] = dot_fours(sums[r][C - 1], (const uint8_t*)&high, x + (i + 1) * R + r);
            }
        }
        Floats of_weights = load_halves((const uint16_t*)panel), minimum = load_halves((const uint16_t*)panel + 16);
        for (int r = 0; r < R; r++) {
            Floats exact = __builtin_convertvector(C == 2 ? sums[r][0] + sums[r][C - 1] : sums[r][0], Floats);
            out[r] = fma(of_weights, exact * splat(as_float(scale + r)), out[r]);
            out[r] = fma(minimum, splat(as_float(sum + r)), out[r]);
        }
    }
}

template <int R, int P>
inline void multiply(int format, const char* panel, int64_t stride, const Word* x, int inputs, Floats (&out)[R][P]) {
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) out[r][p] = Floats{};
    if (format == FLOAT32) return multiply_float32<R, P>(panel, stride, x, inputs, out);
    if (format == BFLOAT16) return multiply_bfloat16<R, P>(panel, stride, x, inputs, out);
    for (int p = 0; p < P; p++) {
        Floats one[R] = {};
        if (format == INT8) multiply_int8<R>(panel + p * stride, x, groups_of(inputs), one);
        if (format == INT4) multiply_int4<R>(panel + p * stride, x, groups_of(inputs), one);
        for (int r = 0; r < R; r++) out[r][p] = one[r];
    }
}

// Rows in, rounded activations out.

inline void prepare_int8(Word* out, const float* x, int inputs) {
    for (int g = 0; g < groups_of(inputs); g++, out += GROUP_WORDS) {
        float part[GROUP] = {};
        int n = inputs - g * GROUP < GROUP ? inputs - g * GROUP : GROUP;
        memcpy(part, x + g * GROUP, n * sizeof(float));
        Floats a = load(part), b = load(part + LANES);
        float top = largest(larger(magnitude(a), magnitude(b)));
        float bad = sum((a - a) + (b - b));  // NaN where anything is not finite: it must show, not be rounded away
        float inverse = top > 0.0f ? 127.0f / top : 0.0f;
        Ints first = __builtin_convertvector(nearest(a * splat(inverse)), Ints);
        Ints second = __builtin_convertvector(nearest(b * splat(inverse)), Ints);
        Bytes codes[2] = {narrowed(first), narrowed(second)};
        memcpy(out, codes, GROUP);
        int32_t total = sum(first + second);
        float scale = top / 127.0f + bad, scaled = scale * float(total);
        int32_t offset = -128 * total;
        memcpy(out + 8, &scale, 4);
        memcpy(out + 9, &scaled, 4);
        memcpy(out + 10, &offset, 4);
    }
}

inline void prepare(int format, Word* out, const float* x, int inputs) {
    if (format >= INT8) return prepare_int8(out, x, inputs);
    memset(out, 0, row_words(format, inputs) * sizeof(Word));
    if (format == FLOAT32) {
        memcpy(out, x, inputs * sizeof(float));
        return;
    }
    uint16_t* to = (uint16_t*)out;
    int i = 0;
    for (; i + LANES <= inputs; i += LANES) store(to + i, load(x + i));
    for (; i < inputs; i++) to[i] = float_to_bfloat(x[i]);
}

// Rows word by word: out[w * count + r] = rows[r][w].
inline void interleave(const Word* const* rows, int count, int words, Word* out) {
    for (int w = 0; w < words; w++)
        for (int r = 0; r < count; r++) out[w * count + r] = rows[r][w];
}

// Matrices in, panels out.

inline void pack_group_int8(char* panel, int lane, const float* w) {
    float top = 0.0f;
    for (int i = 0; i < GROUP; i++) top = __builtin_fabsf(w[i]) > top ? __builtin_fabsf(w[i]) : top;
    float scale = top / 127.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    ((uint16_t*)panel)[lane] = float_to_half(scale);
    for (int i = 0; i < GROUP; i++) {
        float code = __builtin_rintf(w[i] * inverse);
        panel[32 + (i / 4) * 64 + lane * 4 + i % 4] = char(int(code) + 128);
    }
}

inline void pack_group_int4(char* panel, int lane, const float* w) {
    float low = w[0], high = w[0];
    for (int i = 1; i < GROUP; i++) low = w[i] < low ? w[i] : low, high = w[i] > high ? w[i] : high;
    float scale = (high - low) / 15.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    ((uint16_t*)panel)[lane] = float_to_half(scale);
    ((uint16_t*)panel)[16 + lane] = float_to_half(low);
    for (int i = 0; i < GROUP; i++) {
        float code = __builtin_rintf((w[i] - low) * inverse);
        int u = code < 0.0f ? 0 : code > 15.0f ? 15 : int(code);
        char* byte = panel + 64 + (i / 8) * 64 + lane * 4 + i % 4;
        *byte = i % 8 < 4 ? char(u) : char(*byte | (u << 4));
    }
}

// Outputs first, first + 1, ... 15 further of a row-major FP32 matrix (O, I) into one panel; outputs beyond O are zero.
inline void pack_panel(int format, char* panel, const float* w, int outputs, int inputs, int first) {
    int groups = padded(inputs, GROUP) / GROUP;
    int64_t step = panel_bytes(format, GROUP);
    for (int lane = 0; lane < LANES; lane++)
        for (int g = 0; g < groups; g++) {
            float part[GROUP] = {};
            int n = inputs - g * GROUP < GROUP ? inputs - g * GROUP : GROUP;
            if (first + lane < outputs) memcpy(part, w + int64_t(first + lane) * inputs + g * GROUP, n * sizeof(float));
            char* to = panel + g * step;
            if (format == INT8) pack_group_int8(to, lane, part);
            if (format == INT4) pack_group_int4(to, lane, part);
            for (int i = 0; i < GROUP && format == FLOAT32; i++) ((float*)to)[16 * i + lane] = part[i];
            for (int i = 0; i < GROUP && format == BFLOAT16; i++)
                ((uint16_t*)to)[32 * (i / 2) + 2 * lane + i % 2] = float_to_bfloat(part[i]);
        }
}
