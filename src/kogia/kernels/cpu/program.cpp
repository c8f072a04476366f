// A model's forward pass as a list of operations, recorded once by Python (kernels/program.py) and run here in one
// call a step. All threads walk the list together; an operation splits its rows or panels among them, and a barrier
// ends it. How it is split changes no number.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "attend.h"
#include "draw.h"
#include "weights.h"

extern "C" {
// One operation. Which numbers mean what is said at each operation below, and in kernels/program.py.
struct Op {
    int32_t kind, rows;  // rows: 0 = every token, 1 = the wanted ones; times `inner`
    int32_t inner;
    int32_t n[13];
    float f[2];
    void* p[8];
};

// One step's tokens, and memory that belongs to the program.
struct Run {
    int32_t tokens, wanted, table_width, threads;
    const int32_t *token, *position, *sequence, *table, *want;
    float* scratch;
    int64_t scratch_size;  // floats a thread
};
}

namespace {

struct Team {  // the threads of one call
    int size;
    std::atomic<int> waiting{0}, round{0};
    void barrier() {
        if (size == 1) return;
        int now = round.load();
        if (waiting.fetch_add(1) + 1 == size) {
            waiting.store(0);
            round.fetch_add(1);
        } else {
            for (int spins = 0; round.load() == now; spins++) {
#if defined(__x86_64__)
                _mm_pause();
#endif
                if (spins > 4000) {
                    struct timespec nap = {0, 20000};  // another process has our partner's core
                    nanosleep(&nap, nullptr);
                }
            }
        }
    }
};

struct Part {  // what one thread does of `count` things
    int begin, end;
    Part(int count, int thread, int threads)
        : begin(int(int64_t(count) * thread / threads)), end(int(int64_t(count) * (thread + 1) / threads)) {}
};

struct Context {
    const Op& op;
    const Run& run;
    int thread, threads, rows;
    Part part(int count) const { return Part(count, thread, threads); }
    template <class T>
    T* ptr(int i) const { return (T*)op.p[i]; }
};

// Row `row` of a table (n: width, table is BF16, out stride; p: table, out).
void embed_one(const Context& c, int64_t token, int row) {
    int width = c.op.n[0];
    float* out = c.ptr<float>(1) + int64_t(row) * c.op.n[2];
    for (int i = 0; i < width; i++)
        out[i] = c.op.n[1] ? bfloat_to_float(c.ptr<const uint16_t>(0)[token * width + i])
                           : c.ptr<const float>(0)[token * width + i];
}

// EMBED  n: width, table is BF16, out stride; p: table, out
void embed(const Context& c) {
    Part part = c.part(c.run.tokens);
    for (int r = part.begin; r < part.end; r++) embed_one(c, c.run.token[r], r);
}

// AHEAD  embeds the token `ahead` + 1 positions after each row's own, known or guessed.
// n: width, table is BF16, out stride, ahead, tokens a sequence; p: table, out, tokens (sequence, position), lengths
void embed_ahead(const Context& c) {
    const int32_t* n = c.op.n;
    Part part = c.part(c.run.tokens);
    for (int r = part.begin; r < part.end; r++) {
        int64_t sequence = c.run.sequence[r], known = c.ptr<const int64_t>(3)[sequence];
        int64_t at = std::min<int64_t>({c.run.position[r] + n[3] + 1, known + n[3] - 1, n[4] - 1});
        embed_one(c, c.ptr<const int32_t>(2)[sequence * n[4] + at], r);
    }
}

// GUESS  draws each wanted row's token `ahead` places after the next, as its own place will be drawn, and writes it
// behind the known ones.  n: vocabulary, logits' stride, ahead, tokens a sequence
// p: logits, tokens (sequence, position), lengths, where replies begin, settings
void guess(const Context& c) {
    const int32_t* n = c.op.n;
    Part part = c.part(c.run.wanted);
    for (int w = part.begin; w < part.end; w++) {
        int64_t sequence = c.run.sequence[c.run.want[w]], at = c.ptr<const int64_t>(2)[sequence] + n[2];
        const float* logits = c.ptr<const float>(0) + int64_t(w) * n[1];
        draw::Drawn drawn = draw::one(logits, n[0], *c.ptr<const Settings>(4), sequence,
                                      at - c.ptr<const int64_t>(3)[sequence], draw::room());
        c.ptr<int32_t>(1)[sequence * n[3] + std::min<int64_t>(at, n[3] - 1)] = drawn.token;
    }
}

// x / rms(x) * weight
void rms_norm(const float* x, const float* weight, float eps, int n, float* out) {
    Floats squares = {};
    int i = 0;
    for (; i + LANES <= n; i += LANES) squares = fma(load(x + i), load(x + i), squares);
    float total = sum(squares);
    for (; i < n; i++) total = __builtin_fmaf(x[i], x[i], total);
    float scale = 1.0f / sqrtf(total / n + eps);
    for (i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

// PREPARE  n: format, inputs, row stride, inner stride, with norm, by want, floats' stride; f: eps
// p: x, weight, prepared rows or null, floats or null
// Row r of `tokens * inner` comes from x + (r / inner) * row stride + (r % inner) * inner stride.
void prepare_rows(const Context& c) {
    const int32_t* n = c.op.n;
    int inputs = n[1], inner = c.op.inner;
    int64_t words = row_words(n[0], inputs);
    float* room = c.run.scratch + c.thread * c.run.scratch_size;
    Part part = c.part(c.rows * inner);
    for (int r = part.begin; r < part.end; r++) {
        int row = r / inner, source = n[5] ? c.run.want[row] : row;
        const float* x = c.ptr<const float>(0) + int64_t(source) * n[2] + int64_t(r % inner) * n[3];
        float* out = c.ptr<float>(3) ? c.ptr<float>(3) + int64_t(r) * n[6] : room;
        if (n[4]) {
            rms_norm(x, c.ptr<const float>(1), c.op.f[0], inputs, out);
            x = out;
        }
        if (c.ptr<Word>(2)) prepare(n[0], c.ptr<Word>(2) + r * words, x, inputs);
    }
}

// SWIGLU  n: format, width, stride; p: gate and up side by side (rows, stride), prepared rows
void swiglu(const Context& c) {
    int width = c.op.n[1];
    int64_t words = row_words(c.op.n[0], width);
    float* room = c.run.scratch + c.thread * c.run.scratch_size;
    Part part = c.part(c.rows * c.op.inner);
    for (int r = part.begin; r < part.end; r++) {
        const float *gate = c.ptr<const float>(0) + int64_t(r) * c.op.n[2], *up = gate + width;
        for (int i = 0; i < width; i += LANES) {  // a width that is no multiple of 16 reads on into what comes after it
            Floats g = load(gate + i), u = load(up + i);
            store(room + i, g / (splat(1.0f) + exponential(-g)) * u);
        }
        prepare(c.op.n[0], c.ptr<Word>(1) + r * words, room, width);
    }
}

struct Product {
    int format, inputs, outputs;
    const char* panels;
    const float* bias;
    bool adds;  // to what is there
    int count() const { return padded(outputs, LANES) / LANES; }
};

// A tile of R rows times P panels into out[r] + 16 * first.
template <int R, int P>
void multiply_tile(const Product& m, int first, const Word* tile, float* const* out) {
    int64_t stride = panel_bytes(m.format, m.inputs);
    Floats y[R][P];
    multiply<R, P>(m.format, m.panels + first * stride, stride, tile, m.inputs, y);
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            float* to = out[r] + (first + p) * LANES;
            if (m.bias) y[r][p] = y[r][p] + load(m.bias + (first + p) * LANES);
            store(to, m.adds ? load(to) + y[r][p] : y[r][p]);
        }
}

template <int P>
void multiply_any(const Product& m, int first, const Word* tile, float* const* out, int rows) {
    switch (rows) {
        case 1: return multiply_tile<1, P>(m, first, tile, out);
        case 2: return multiply_tile<2, P>(m, first, tile, out);
        case 3: return multiply_tile<3, P>(m, first, tile, out);
        case 4: return multiply_tile<4, P>(m, first, tile, out);
        case 5: return multiply_tile<5, P>(m, first, tile, out);
        case 6: return multiply_tile<6, P>(m, first, tile, out);
        case 7: return multiply_tile<7, P>(m, first, tile, out);
        default: return multiply_tile<8, P>(m, first, tile, out);
    }
}

constexpr int TILE = 8;         // rows multiplied together
constexpr int TILES = 4;        // tiles for which a panel is read once

// Panels begin..end of a matrix times up to TILE * TILES rows. room: their words, interleaved tile by tile.
void multiply_rows(const Product& m, Part panels, const Word* const* rows, float* const* out, int count, Word* room) {
    int words = row_words(m.format, m.inputs);
    const Word* tiles[TILES];
    for (int t = 0; t * TILE < count; t++) {
        int n = count - t * TILE < TILE ? count - t * TILE : TILE;
        tiles[t] = n == 1 ? rows[t * TILE] : room + int64_t(t) * TILE * words;
        if (n > 1) interleave(rows + t * TILE, n, words, room + int64_t(t) * TILE * words);
    }
    // With few rows, several panels at once keep the multipliers busy.
    int wide = m.format > BFLOAT16 ? 1 : count <= 2 ? 8 : count <= 4 ? 4 : 2;
    for (int p = panels.begin; p < panels.end;) {
        while (p + wide > panels.end) wide /= 2;
        for (int t = 0; t * TILE < count; t++) {
            int n = count - t * TILE < TILE ? count - t * TILE : TILE;
            float* const* to = out + t * TILE;
            if (wide == 8) n == 1 ? multiply_tile<1, 8>(m, p, tiles[t], to) : multiply_tile<2, 8>(m, p, tiles[t], to);
            if (wide == 4) multiply_any<4>(m, p, tiles[t], to, n);
            if (wide == 2) multiply_any<2>(m, p, tiles[t], to, n);
            if (wide == 1) multiply_any<1>(m, p, tiles[t], to, n);
        }
        p += wide;
    }
}

// `total` rows through panels begin..end, TILE * TILES at a time. row(i) is prepared row i, out(i) where it goes.
template <class RowOf, class OutOf>
void multiply_all(const Context& c, const Product& m, Part panels, int total, RowOf row, OutOf out) {
    constexpr int MOST = TILE * TILES;
    for (int first = 0; first < total && panels.begin < panels.end; first += MOST) {
        int count = total - first < MOST ? total - first : MOST;
        const Word* rows[MOST];
        float* to[MOST];
        for (int i = 0; i < count; i++) rows[i] = row(first + i), to[i] = out(first + i);
        multiply_rows(m, panels, rows, to, count, (Word*)(c.run.scratch + c.thread * c.run.scratch_size));
    }
}

// LINEAR  n: format, inputs, outputs, out stride, adds; p: panels, prepared rows, out, bias or null
void linear(const Context& c) {
    const int32_t* n = c.op.n;
    Product m = {n[0], n[1], n[2], c.ptr<const char>(0), c.ptr<const float>(3), n[4] != 0};
    int64_t words = row_words(m.format, m.inputs), stride = n[3];
    multiply_all(c, m, c.part(m.count()), c.rows, [&](int r) { return c.ptr<const Word>(1) + r * words; },
                 [&](int r) { return c.ptr<float>(2) + r * stride; });
}

// The panels of matrix number `seen` (of those in use) that fall into a thread's run over all of them.
Part panels_of(const Part& mine, int seen, int count) {
    Part part = mine;
    part.begin = mine.begin > seen * count ? mine.begin - seen * count : 0;
    part.end = mine.end - seen * count < count ? mine.end - seen * count : count;
    return part;
}

// HEADS  a matrix a head.  n: format, inputs, outputs, out stride from head to head, heads
// p: panels, prepared rows (token, head), out
void heads_linear(const Context& c) {
    const int32_t* n = c.op.n;
    Product m = {n[0], n[1], n[2], c.ptr<const char>(0), nullptr, false};
    int64_t words = row_words(m.format, m.inputs), matrix = panel_bytes(m.format, m.inputs) * m.count();
    int64_t heads = n[4], stride = n[3];
    Part mine = c.part(int(heads) * m.count());
    for (int h = 0; h < heads; h++) {
        Product one = m;
        one.panels += h * matrix;
        multiply_all(c, one, panels_of(mine, h, m.count()), c.rows,
                     [&](int r) { return c.ptr<const Word>(1) + (r * heads + h) * words; },
                     [&](int r) { return c.ptr<float>(2) + (r * heads + h) * stride; });
    }
}

void rotate(const float* x, float* out, const float* cos, const float* sin, int half, bool interleaved) {
    for (int i = 0; i < half; i++) {
        int a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;
        float first = x[a], second = x[b];
        out[a] = __builtin_fmaf(first, cos[i], -(second * sin[i]));
        out[b] = __builtin_fmaf(first, sin[i], second * cos[i]);
    }
}

void put(void* base, int64_t at, const float* x, int n, bool narrow) {
    for (int i = 0; i < n; i++) {
        if (narrow) ((uint16_t*)base)[at + i] = float_to_bfloat(x[i]);
        else ((float*)base)[at + i] = x[i];
    }
}

int64_t slot(const Run& run, int row) {
    int position = run.position[row];
    const int32_t* table = run.table + int64_t(run.sequence[row]) * run.table_width;
    return int64_t(table[position / PAGE]) * PAGE + position % PAGE;
}

// LATENT  into the cache: norm(latent) and the rotated key.  n: latent, rope, cache width, BF16 cache, row stride, key
// offset in the cache; f: eps; p: x (latent then key), norm weight, cache layer, cos, sin
void store_latent(const Context& c) {
    const int32_t* n = c.op.n;
    int half = n[1] / 2;
    float* room = c.run.scratch + c.thread * c.run.scratch_size;
    Part part = c.part(c.run.tokens);
    for (int r = part.begin; r < part.end; r++) {
        const float* x = c.ptr<const float>(0) + int64_t(r) * n[4];
        int64_t turn = int64_t(c.run.position[r]) * half, at = slot(c.run, r) * n[2];
        rms_norm(x, c.ptr<const float>(1), c.op.f[0], n[0], room);
        put(c.ptr<void>(2), at, room, n[0], n[3]);
        rotate(x + n[0], room, c.ptr<const float>(3) + turn, c.ptr<const float>(4) + turn, half, true);
        put(c.ptr<void>(2), at + n[5], room, n[1], n[3]);
    }
}

// TURN  heads of a row: optional norm, then rotation, to floats or into the cache.  n: heads, width, row stride, head
// stride, interleaved, out head stride, to the cache, cache width, BF16 cache, offset there, rotary width, out row
// stride; f: eps; p: x, norm weight or null, out or cache layer, cos, sin (null: only copied)
void turn_heads(const Context& c) {
    const int32_t* n = c.op.n;
    int heads = n[0], width = n[1], rotary = n[10];
    float* room = c.run.scratch + c.thread * c.run.scratch_size;
    Part part = c.part(c.run.tokens);
    for (int r = part.begin; r < part.end; r++) {
        int64_t turn = int64_t(c.run.position[r]) * (rotary / 2);
        for (int h = 0; h < heads; h++) {
            const float* x = c.ptr<const float>(0) + int64_t(r) * n[2] + int64_t(h) * n[3];
            if (c.ptr<void>(1)) {
                rms_norm(x, c.ptr<const float>(1), c.op.f[0], width, room + width);
                x = room + width;
            }
            const float* done = x;
            if (c.ptr<void>(3)) {
                rotate(x, room, c.ptr<const float>(3) + turn, c.ptr<const float>(4) + turn, rotary / 2, n[4]);
                done = room;
            }
            if (n[6]) put(c.ptr<void>(2), slot(c.run, r) * n[7] + n[9] + int64_t(h) * n[5], done, width, n[8]);
            else memcpy(c.ptr<float>(2) + int64_t(r) * n[11] + int64_t(h) * n[5], done, width * sizeof(float));
        }
    }
}

// ATTEND  n: groups, heads a group, key width, value width, cache width, BF16 cache, key step, value step, first value,
// query stride a head, out stride a head; f: scale; p: queries, cache layer, out
template <class Number>
void attend_rows(const Context& c) {
    const int32_t* n = c.op.n;
    int groups = n[0], heads = n[1];
    float* room = c.run.scratch + c.thread * c.run.scratch_size;
    int64_t query_row = int64_t(groups) * heads * n[9], out_row = int64_t(groups) * heads * n[10];
    // With few rows the heads of a group are shared out too, in fours.
    int blocks = (heads + HEADS - 1) / HEADS;
    Part part = c.part(c.run.tokens * groups * blocks);
    for (int unit = part.begin; unit < part.end; unit++) {
        int row = unit / (groups * blocks), group = unit / blocks % groups, first = unit % blocks * HEADS;
        int count = heads - first < HEADS ? heads - first : HEADS;
        Pages<Number> pages = {c.ptr<const Number>(1),
                               c.run.table + int64_t(c.run.sequence[row]) * c.run.table_width, n[4]};
        Heads g;
        g.queries = c.ptr<const float>(0) + row * query_row + int64_t(group * heads + first) * n[9];
        g.out = c.ptr<float>(2) + row * out_row + int64_t(group * heads + first) * n[10];
        g.query_stride = n[9], g.out_stride = n[10];
        g.key_offset = int64_t(group) * n[6], g.value_offset = n[8] + int64_t(group) * n[7];
        g.key_width = n[2], g.value_width = n[3], g.scale = c.op.f[0];
        attend(pages, g, count, c.run.position[row] + 1, room);
    }
}

// The best `count` of some scores, best first; of equals the first. Chosen ones are overwritten.
void pick_best(float* score, int size, int count, int32_t* chosen) {
    for (int k = 0; k < count; k++) {
        int best = 0;
        for (int e = 1; e < size; e++)
            if (score[e] > score[best]) best = e;
        chosen[k] = best;
        score[best] = -INFINITY;
    }
}

struct Router {
    int experts, groups, kept_groups, counted, picks, sigmoid, normalise;
    float factor;
    const float* bias;
};

void route_row(const Router& m, const float* logits, float* room, int32_t* experts, float* weights) {
    float *score = room, *choice = room + m.experts, *by_group = choice + m.experts;
    int32_t* kept = (int32_t*)(by_group + m.groups);
    float top = -INFINITY, total = 0.0f;
    for (int e = 0; e < m.experts; e++) top = logits[e] > top ? logits[e] : top;
    for (int e = 0; e < m.experts; e++) {
        score[e] = m.sigmoid ? 1.0f / (1.0f + expf(-logits[e])) : expf(logits[e] - top);
        total += score[e];
    }
    for (int e = 0; e < m.experts; e++) {
        if (!m.sigmoid) score[e] = score[e] / total;
        choice[e] = score[e] + (m.bias ? m.bias[e] : 0.0f);
    }
    int size = m.experts / m.groups;
    if (m.kept_groups < m.groups) {
        for (int g = 0; g < m.groups; g++) {
            float best = -INFINITY, second = -INFINITY;
            for (int e = g * size; e < (g + 1) * size; e++) {
                if (choice[e] > best) second = best, best = choice[e];
                else if (choice[e] > second) second = choice[e];
            }
            by_group[g] = m.counted == 2 ? best + second : best;
        }
        pick_best(by_group, m.groups, m.kept_groups, kept);
        for (int g = 0; g < m.groups; g++) {  // what was picked is marked by pick_best
            if (by_group[g] == -INFINITY) continue;
            for (int e = g * size; e < (g + 1) * size; e++) choice[e] = -INFINITY;
        }
    }
    pick_best(choice, m.experts, m.picks, experts);
    total = 0.0f;
    for (int k = 0; k < m.picks; k++) total += score[experts[k]];
    for (int k = 0; k < m.picks; k++)
        weights[k] = (m.normalise ? score[experts[k]] / (total + 1e-20f) : score[experts[k]]) * m.factor;
}

// ROUTE  n: experts, groups, kept groups, counted in a group, picks, sigmoid, normalise, logits' stride, weights' stride
// f: factor; p: logits, bias or null, experts (tokens, picks), weights, start (experts + 1), tokens and pairs by expert
void route(const Context& c) {
    const int32_t* n = c.op.n;
    if (c.thread) return;
    Router m = {n[0], n[1], n[2], n[3], n[4], n[5], n[6], c.op.f[0], c.ptr<const float>(1)};
    int32_t *experts = c.ptr<int32_t>(2), *start = c.ptr<int32_t>(4);
    for (int r = 0; r < c.run.tokens; r++)
        route_row(m, c.ptr<const float>(0) + int64_t(r) * n[7], c.run.scratch, experts + r * m.picks,
                  c.ptr<float>(3) + int64_t(r) * n[8]);
    int pairs = c.run.tokens * m.picks;
    memset(start, 0, (m.experts + 1) * sizeof(int32_t));
    for (int i = 0; i < pairs; i++) start[experts[i] + 1]++;
    for (int e = 0; e < m.experts; e++) start[e + 1] += start[e];
    int32_t* next = (int32_t*)c.run.scratch;
    memcpy(next, start, m.experts * sizeof(int32_t));
    for (int i = 0; i < pairs; i++) {
        int at = next[experts[i]]++;
        c.ptr<int32_t>(5)[at] = i / m.picks;
        c.ptr<int32_t>(6)[at] = i;
    }
}

// EXPERTS  a matrix an expert.  n: format, inputs, outputs, out stride, experts, input is a pair's row
// p: panels, prepared rows, out, start (expert e has entries start[e] .. start[e + 1]), tokens, pairs
void experts_linear(const Context& c) {
    const int32_t *n = c.op.n, *start = c.ptr<const int32_t>(3);
    const int32_t *from = c.ptr<const int32_t>(n[5] ? 5 : 4), *to = c.ptr<const int32_t>(5);
    Product m = {n[0], n[1], n[2], c.ptr<const char>(0), nullptr, false};
    int64_t words = row_words(m.format, m.inputs), matrix = panel_bytes(m.format, m.inputs) * m.count(), stride = n[3];
    int busy = 0, seen = 0;
    for (int e = 0; e < n[4]; e++) busy += start[e + 1] > start[e];
    Part mine = c.part(busy * m.count());
    for (int e = 0; e < n[4]; e++) {
        int begin = start[e], count = start[e + 1] - begin;
        if (!count) continue;
        Product one = m;
        one.panels += e * matrix;
        multiply_all(c, one, panels_of(mine, seen++, m.count()), count,
                     [&](int i) { return c.ptr<const Word>(1) + from[begin + i] * words; },
                     [&](int i) { return c.ptr<float>(2) + to[begin + i] * stride; });
    }
}

// COMBINE  n: width, picks, outputs' stride, x's stride, weights' stride; p: x, experts' outputs, weights
// x += sum of weight * output
void combine(const Context& c) {
    int width = c.op.n[0], picks = c.op.n[1];
    Part part = c.part(c.run.tokens);
    for (int r = part.begin; r < part.end; r++) {
        float* x = c.ptr<float>(0) + int64_t(r) * c.op.n[3];
        for (int k = 0; k < picks; k++) {
            const float* y = c.ptr<const float>(1) + (int64_t(r) * picks + k) * c.op.n[2];
            float w = c.ptr<const float>(2)[int64_t(r) * c.op.n[4] + k];
            for (int i = 0; i < width; i++) x[i] = __builtin_fmaf(w, y[i], x[i]);
        }
    }
}

// JOIN  norm(embedded) and norm(hidden) side by side.  n: width, stride of both, out stride; f: eps
// p: embedded, hidden, norm of the one, of the other, out
void join(const Context& c) {
    int width = c.op.n[0];
    Part part = c.part(c.run.tokens);
    for (int r = part.begin; r < part.end; r++) {
        float* out = c.ptr<float>(4) + int64_t(r) * c.op.n[2];
        int64_t from = int64_t(r) * c.op.n[1];
        rms_norm(c.ptr<const float>(0) + from, c.ptr<const float>(2), c.op.f[0], width, out);
        rms_norm(c.ptr<const float>(1) + from, c.ptr<const float>(3), c.op.f[0], width, out + width);
    }
}

void attend_any(const Context& c) { c.op.n[5] ? attend_rows<uint16_t>(c) : attend_rows<float>(c); }

typedef void (*Operation)(const Context&);
const Operation OPERATIONS[] = {  // in the order of KINDS in kernels/program.py
    embed,      prepare_rows, swiglu,         linear,  heads_linear, store_latent, turn_heads,
    attend_any, route,        experts_linear, combine, join,         embed_ahead,  guess};

void walk(const Op* ops, int count, const Run& run, Team& team, int thread) {
    for (int i = 0; i < count; i++) {
        int rows = ops[i].rows ? run.wanted : run.tokens;
        OPERATIONS[ops[i].kind](Context{ops[i], run, thread, team.size, rows});
        team.barrier();
    }
}

}  // namespace

extern "C" {

int64_t kogia_panel_bytes(int format, int inputs) { return panel_bytes(format, inputs); }
int kogia_row_words(int format, int inputs) { return row_words(format, inputs); }

// A row-major FP32 matrix (outputs, inputs) into panels.
void kogia_pack(int format, const float* matrix, int outputs, int inputs, char* panels) {
    int count = padded(outputs, LANES) / LANES;
    int64_t bytes = panel_bytes(format, inputs);
    for (int p = 0; p < count; p++) pack_panel(format, panels + p * bytes, matrix, outputs, inputs, p * LANES);
}

void kogia_run(const Op* ops, int count, const Run* run) {
    Team team;
    team.size = run->threads;
#if defined(_OPENMP)
    if (team.size > 1) {
#pragma omp parallel num_threads(team.size)
        {
#pragma omp single
            team.size = omp_get_num_threads();  // fewer than asked for, where the system gives fewer
            walk(ops, count, *run, team, omp_get_thread_num());
        }
        return;
    }
#endif
    team.size = 1;
    walk(ops, count, *run, team, 0);
}

void kogia_draw(const Draws* draws) {
#if defined(_OPENMP)
#pragma omp parallel for num_threads(draws->threads) if (draws->threads > 1 && draws->places > 1)
#endif
    for (int i = 0; i < draws->places; i++) {
        const float* logits = draws->logits + draws->at[i] * draws->stride;
        draw::Drawn drawn = draw::one(logits, draws->vocabulary, draws->settings, draws->owner[i], draws->place[i],
                                      draw::room());
        draws->tokens[i] = drawn.token, draws->logprobs[i] = drawn.logprob;
    }
}
}
