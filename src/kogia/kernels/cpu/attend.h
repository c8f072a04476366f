// Attention of one new token over a paged cache. Scores first, then softmax, then values, each in the order of the
// positions: nothing depends on how many tokens came in the same step or how they were cut into chunks.
#pragma once
#include "lanes.h"

constexpr int PAGE = 16;  // positions in a block of the cache
constexpr int HEADS = 4;  // heads whose sums are kept in registers at a time

// Where a sequence's keys and values are. Number is float or uint16_t (BF16).
template <class Number>
struct Pages {
    const Number* layer;   // first number of the layer's first block
    const int32_t* table;  // block of each 16 positions
    int64_t width;         // numbers a position
    const Number* at(int position) const {
        return layer + (int64_t(table[position / PAGE]) * PAGE + position % PAGE) * width;
    }
};

// Products of keys and queries: sixteen floats at a time, or thirty-two BF16 numbers where the CPU multiplies those.
inline Floats add_products(Floats acc, const float* key, const float* query, int) {
    return fma(load(query), load(key), acc);
}
constexpr int step_of(const float*) { return LANES; }
#if defined(__AVX512BF16__)
typedef uint16_t Query;  // queries are rounded as the cache is
inline __m512i load_pairs(const uint16_t* p, int left) {  // the last sixteen alone: what follows them is not ours
    return left >= 32 ? _mm512_loadu_si512(p) : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i*)p));
}
inline Floats add_products(Floats acc, const uint16_t* key, const uint16_t* query, int left) {
    return (Floats)_mm512_dpbf16_ps((__m512)acc, (__m512bh)load_pairs(query, left), (__m512bh)load_pairs(key, left));
}
constexpr int step_of(const uint16_t*) { return 2 * LANES; }
#else
typedef float Query;
inline Floats add_products(Floats acc, const uint16_t* key, const float* query, int) {
    return fma(load(query), load(key), acc);
}
constexpr int step_of(const uint16_t*) { return LANES; }
#endif
template <class Number> struct QueryOf { typedef float type; };
template <> struct QueryOf<uint16_t> { typedef Query type; };

// H heads' scores of the 16 positions of one page: scores[h][0..15].
template <int H, class Number, class Q>
inline void score_page(const Number* page, int64_t width, const Q* queries, int key_width, Floats (&scores)[H]) {
    constexpr int STEP = step_of((const Number*)nullptr);
    Floats part[H][PAGE];
    for (int first = 0; first < PAGE; first += 4) {
        Floats acc[H][4] = {};
        for (int d = 0; d < key_width; d += STEP)
            for (int h = 0; h < H; h++)
                for (int k = 0; k < 4; k++)
                    acc[h][k] = add_products(acc[h][k], page + (first + k) * width + d, queries + h * key_width + d,
                                             key_width - d);
        for (int h = 0; h < H; h++)
            for (int k = 0; k < 4; k++) part[h][first + k] = acc[h][k];
    }
    for (int h = 0; h < H; h++) scores[h] = sums_of(part[h]);
}

// Turn scores into weights e^(score - largest); returns 1 / their sum. Scores at `length` and beyond are masked.
// rounded: weights are multiplied as BF16, so they are rounded before they are summed.
inline float softmax_weights(float* scores, int length, float scale, bool rounded) {
    Floats top = splat(-3.0e38f);
    const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int s = 0; s < length; s += LANES) {
        Floats x = load(scores + s) * splat(scale);
        x = (lanes + s) < length ? x : splat(-3.0e38f);
        store(scores + s, x);
        top = x > top || x != x ? x : top;  // NaN must show
    }
    float peak = largest(top), bad = sum(top - top);
    Floats total = {};
    for (int s = 0; s < length; s += LANES) {
        Floats p = exponential(load(scores + s) - splat(peak));
        if (rounded) p = rounded_to_bfloat(p);
        store(scores + s, p);
        total = total + p;
    }
    return 1.0f / (sum(total) + bad);
}

// acc[h][c] += weight * value over the positions, for H heads and C x 16 numbers.
template <int H, int C, class Number>
inline void mix(const Pages<Number>& pages, int64_t offset, const float* weights, int64_t room, int length,
                Floats (&acc)[H][C]) {
    for (int s = 0; s < length; s++) {
        const Number* value = pages.at(s) + offset;
        for (int c = 0; c < C; c++) {
            Floats v = load(value + c * LANES);
            for (int h = 0; h < H; h++) acc[h][c] = fma(splat(weights[h * room + s]), v, acc[h][c]);
        }
    }
}

#if defined(__AVX512BF16__)
// Two positions at a time: their numbers interleaved, their weights as a pair (rounded to BF16 by softmax_weights).
template <int H, int C>
inline void mix(const Pages<uint16_t>& pages, int64_t offset, const float* weights, int64_t room, int length,
                Floats (&acc)[H][C]) {
    const __m512i even_odd = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                              37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    for (int s = 0; s < length; s += 2) {
        const uint16_t* value = pages.at(s) + offset;
        bool both = s + 1 < length;  // a position not yet written may hold anything, NaN too
        __m512i weight[H];
        for (int h = 0; h < H; h++) {
            const uint16_t* w = (const uint16_t*)(weights + h * room + s);
            uint32_t second = both ? w[3] : 0;
            weight[h] = _mm512_set1_epi32(int(w[1] | second << 16));
        }
        for (int c = 0; c < C; c++) {
            __m256i first = _mm256_loadu_si256((const __m256i*)(value + c * LANES));
            __m256i next = both ? _mm256_loadu_si256((const __m256i*)(value + pages.width + c * LANES)) : __m256i{};
            __m512i pairs = _mm512_permutex2var_epi16(_mm512_castsi256_si512(first), even_odd, _mm512_castsi256_si512(next));
            for (int h = 0; h < H; h++)
                acc[h][c] = (Floats)_mm512_dpbf16_ps((__m512)acc[h][c], (__m512bh)pairs, (__m512bh)weight[h]);
        }
    }
}
constexpr bool ROUNDED_WEIGHTS = true;
#else
constexpr bool ROUNDED_WEIGHTS = false;
#endif

// out[h][0 .. C * 16) = sum over positions of weight * value, times shrink[h].
template <int H, int C, class Number>
inline void mix_values(const Pages<Number>& pages, int64_t offset, const float* weights, int64_t room, int length,
                       const float* shrink, float* out, int64_t out_stride) {
    Floats acc[H][C] = {};
    mix<H, C>(pages, offset, weights, room, length, acc);
    for (int h = 0; h < H; h++)
        for (int c = 0; c < C; c++) store(out + h * out_stride + c * LANES, acc[h][c] * splat(shrink[h]));
}

// Ask for what a page holds of a group's keys or values: pages lie scattered, so no hardware foresees the next one.
template <class Number>
inline void foresee(const Pages<Number>& pages, int position, int length, int64_t offset, int numbers) {
    if (position >= length) return;
    const Number* page = pages.at(position) + offset;
    for (int k = 0; k < PAGE; k++)
        for (int i = 0; i < numbers; i += 64 / int(sizeof(Number))) __builtin_prefetch(page + k * pages.width + i);
}

struct Heads {  // a group of heads that share keys and values
    const float* queries;
    float* out;
    int64_t query_stride, out_stride;  // from one head to the next
    int64_t key_offset, value_offset;  // of this group's keys and values in a position's numbers
    int key_width, value_width;        // multiples of 16
    float scale;
};

inline void put_queries(float* to, const float* from, int n) { memcpy(to, from, n * sizeof(float)); }
inline void put_queries(uint16_t* to, const float* from, int n) {
    for (int i = 0; i < n; i += LANES) store(to + i, load(from + i));
}

template <int H, class Number>
inline void attend_heads(const Pages<Number>& pages, const Heads& g, int first, int length, float* scratch) {
    typedef typename QueryOf<Number>::type Q;
    int64_t room = (length + PAGE - 1) / PAGE * PAGE;
    Q* queries = (Q*)(scratch + H * room);
    for (int h = 0; h < H; h++)
        put_queries(queries + h * g.key_width, g.queries + (first + h) * g.query_stride, g.key_width);
    foresee(pages, 0, length, g.key_offset, g.key_width);
    for (int s = 0; s < length; s += PAGE) {
        foresee(pages, s + PAGE, length, g.key_offset, g.key_width);
        if (g.value_offset != g.key_offset) foresee(pages, s, length, g.value_offset, g.value_width);
        Floats scores[H];
        score_page<H>(pages.at(s) + g.key_offset, pages.width, queries, g.key_width, scores);
        for (int h = 0; h < H; h++) store(scratch + h * room + s, scores[h]);
    }
    const bool rounded = sizeof(Number) == 2 && ROUNDED_WEIGHTS;
    float shrink[H];
    for (int h = 0; h < H; h++) shrink[h] = softmax_weights(scratch + h * room, length, g.scale, rounded);
    float* out = g.out + first * g.out_stride;
    int d = 0;
    for (; d + 4 * LANES <= g.value_width; d += 4 * LANES)
        mix_values<H, 4>(pages, g.value_offset + d, scratch, room, length, shrink, out + d, g.out_stride);
    for (; d < g.value_width; d += LANES)
        mix_values<H, 1>(pages, g.value_offset + d, scratch, room, length, shrink, out + d, g.out_stride);
}

// One token, one group of heads. scratch: HEADS * (length rounded up to 16 + key_width) floats.
template <class Number>
inline void attend(const Pages<Number>& pages, const Heads& group, int heads, int length, float* scratch) {
    int h = 0;
    for (; h + 4 <= heads; h += 4) attend_heads<4>(pages, group, h, length, scratch);
    if (heads - h == 3) attend_heads<3>(pages, group, h, length, scratch);
    if (heads - h == 2) attend_heads<2>(pages, group, h, length, scratch);
    if (heads - h == 1) attend_heads<1>(pages, group, h, length, scratch);
}
