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

// H heads' scores of the 16 positions of one page: scores[h][0..15].
template <int H, class Number>
inline void score_page(const Number* page, int64_t width, const float* queries, int64_t head_stride, int key_width,
                       Floats (&scores)[H]) {
    Floats part[H][PAGE];
    for (int first = 0; first < PAGE; first += 4) {
        Floats acc[H][4] = {};
        for (int d = 0; d < key_width; d += LANES) {
            Floats key[4];
            for (int k = 0; k < 4; k++) key[k] = load(page + (first + k) * width + d);
            for (int h = 0; h < H; h++) {
                Floats q = load(queries + h * head_stride + d);
                for (int k = 0; k < 4; k++) acc[h][k] = fma(q, key[k], acc[h][k]);
            }
        }
        for (int h = 0; h < H; h++)
            for (int k = 0; k < 4; k++) part[h][first + k] = acc[h][k];
    }
    for (int h = 0; h < H; h++) scores[h] = sums_of(part[h]);
}

// Turn scores into weights e^(score - largest); returns 1 / their sum. Scores at `length` and beyond are masked.
inline float softmax_weights(float* scores, int length, float scale) {
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
        store(scores + s, p);
        total = total + p;
    }
    return 1.0f / (sum(total) + bad);
}

// out[h][0..value_width) = sum over positions of weight * value, for H heads, C x 16 numbers at a time.
template <int H, int C, class Number>
inline void mix_values(const Pages<Number>& pages, int64_t offset, const float* weights, int64_t weight_stride,
                       int length, const float* shrink, float* out, int64_t out_stride) {
    Floats acc[H][C] = {};
    for (int s = 0; s < length; s++) {
        const Number* value = pages.at(s) + offset;
        Floats v[C];
        for (int c = 0; c < C; c++) v[c] = load(value + c * LANES);
        for (int h = 0; h < H; h++) {
            Floats w = splat(weights[h * weight_stride + s]);
            for (int c = 0; c < C; c++) acc[h][c] = fma(w, v[c], acc[h][c]);
        }
    }
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

template <int H, class Number>
inline void attend_heads(const Pages<Number>& pages, const Heads& g, int first, int length, float* scratch) {
    int64_t room = (length + PAGE - 1) / PAGE * PAGE;
    const float* queries = g.queries + first * g.query_stride;
    foresee(pages, 0, length, g.key_offset, g.key_width);
    for (int s = 0; s < length; s += PAGE) {
        foresee(pages, s + PAGE, length, g.key_offset, g.key_width);
        if (g.value_offset != g.key_offset) foresee(pages, s, length, g.value_offset, g.value_width);
        Floats scores[H];
        score_page<H>(pages.at(s) + g.key_offset, pages.width, queries, g.query_stride, g.key_width, scores);
        for (int h = 0; h < H; h++) store(scratch + h * room + s, scores[h]);
    }
    float shrink[H];
    for (int h = 0; h < H; h++) shrink[h] = softmax_weights(scratch + h * room, length, g.scale);
    float* out = g.out + first * g.out_stride;
    int d = 0;
    for (; d + 4 * LANES <= g.value_width; d += 4 * LANES)
        mix_values<H, 4>(pages, g.value_offset + d, scratch, room, length, shrink, out + d, g.out_stride);
    for (; d < g.value_width; d += LANES)
        mix_values<H, 1>(pages, g.value_offset + d, scratch, room, length, shrink, out + d, g.out_stride);
}

// One token, one group of heads. scratch: HEADS * (length rounded up to 16) floats.
template <class Number>
inline void attend(const Pages<Number>& pages, const Heads& group, int heads, int length, float* scratch) {
    int h = 0;
    for (; h + 4 <= heads; h += 4) attend_heads<4>(pages, group, h, length, scratch);
    if (heads - h == 3) attend_heads<3>(pages, group, h, length, scratch);
    if (heads - h == 2) attend_heads<2>(pages, group, h, length, scratch);
    if (heads - h == 1) attend_heads<1>(pages, group, h, length, scratch);
}
