// From a row of logits to a token: softmax at a temperature, what is unlikely cut off, the cumulative distribution
// inverted. A row's token and log-probability are functions of that row, its settings and its number alone.
// The definition in PyTorch and NumPy is engine/sampler.py.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "lanes.h"

struct Settings {  // of requests, by owner: columns
    const float *temperature, *top_p, *min_p;
    const int64_t *top_k, *seed;
};

struct Draws {  // `places` tokens; of each: its row of logits, whose settings it has, and which number of theirs
    int32_t places, vocabulary, threads;
    const float* logits;
    int64_t stride;
    const int64_t *at, *owner, *place;
    Settings settings;
    int64_t* tokens;
    float* logprobs;
};

namespace draw {

constexpr int BLOCK = 64;
constexpr float COLDEST = 1e-5f;

struct Likely {
    float p;
    int32_t id;
    bool operator<(const Likely& other) const { return p > other.p || (p == other.p && id < other.id); }
};

// SplitMix64 as a counter-based generator: the number of a place of a request, in [0, 1).
inline double uniform(int64_t seed, int64_t place) {
    uint64_t x = uint64_t(seed) * 0xD1B54A32D192ED03u + uint64_t(place);
    x = (x + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    x = x ^ (x >> 31);
    return double(x >> 11) * 0x1p-53;
}

struct Row {
    std::vector<float> p;      // e^((logit - largest) / temperature), padded with zeros to whole blocks
    std::vector<double> ends;  // cumulative sums of blocks
    std::vector<Likely> likely;
    double total;
    float top;

    void weigh(const float* logits, int n, float warmth) {
        int blocks = (n + BLOCK - 1) / BLOCK;
        p.resize(size_t(blocks) * BLOCK), ends.resize(blocks);
        top = logits[0];
        int i = 0;
        if (n >= LANES) {
            Floats most = load(logits);
            for (i = LANES; i + LANES <= n; i += LANES) most = larger(load(logits + i), most);
            top = largest(most);
        }
        for (; i < n; i++) top = logits[i] > top ? logits[i] : top;
        total = 0.0;
        for (int b = 0; b < blocks; b++) {
            float tail[BLOCK];
            const float* from = logits + b * BLOCK;
            if ((b + 1) * BLOCK > n) {
                for (int k = 0; k < BLOCK; k++) tail[k] = b * BLOCK + k < n ? from[k] : -INFINITY;
                from = tail;
            }
            Floats e[BLOCK / LANES];
            for (int v = 0; v < BLOCK / LANES; v++) {
                e[v] = exponential((load(from + v * LANES) - splat(top)) * splat(warmth));
                store(&p[b * BLOCK + v * LANES], e[v]);
            }
            total += sum((e[0] + e[1]) + (e[2] + e[3]));
            ends[b] = total;
        }
    }

    // The first token whose cumulative weight is beyond the target; never one of weight zero.
    int invert(double target) const {
        int b = int(std::upper_bound(ends.begin(), ends.end(), target) - ends.begin());
        if (b == int(ends.size())) b = int(std::lower_bound(ends.begin(), ends.end(), total) - ends.begin());
        double sum = b ? ends[b - 1] : 0.0;
        int last = -1;
        for (int i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
            if (p[i] == 0.0f) continue;
            last = i;
            sum += p[i];
            if (sum > target) return i;
        }
        return last;
    }

    // Those that are left, in the order of the vocabulary.
    void cut(int n, float top_p, int64_t top_k, float min_p) {
        // What is smaller than a share of the mass beyond the nucleus can not be in it: it need not be sorted.
        bool alone = !top_k && min_p <= 0.0f && top_p < 1.0f - 1e-5f;
        double least = alone ? 0.5 * (1.0 - top_p) / n * total : min_p;
        likely.clear();
        for (int i = 0; i < n; i++)
            if (p[i] > 0.0f && p[i] >= least) likely.push_back({p[i], i});
        if (top_k && top_k < int64_t(likely.size())) {
            std::nth_element(likely.begin(), likely.begin() + top_k, likely.end());
            likely.resize(top_k);
        }
        if (top_p < 1.0f) {
            double mass = alone ? total : 0.0, reached = 0.0;
            std::sort(likely.begin(), likely.end());
            if (!alone)
                for (const Likely& one : likely) mass += one.p;
            size_t kept = 0;
            while (kept < likely.size() && (kept == 0 || reached < std::max(top_p, COLDEST) * mass))
                reached += likely[kept++].p;
            likely.resize(kept);
        }
        std::sort(likely.begin(), likely.end(), [](const Likely& a, const Likely& b) { return a.id < b.id; });
    }

    int invert_likely(double u) const {
        double mass = 0.0, reached = 0.0;
        for (const Likely& one : likely) mass += one.p;
        for (const Likely& one : likely)
            if ((reached += one.p) > u * mass) return one.id;
        return likely.back().id;
    }
};

struct Drawn {
    int token;
    float logprob;  // at the temperature, before anything was cut off
};

inline Drawn one(const float* logits, int vocabulary, const Settings& s, int64_t owner, int64_t place, Row& room) {
    float temperature = s.temperature[owner], top_p = s.top_p[owner], min_p = s.min_p[owner];
    bool greedy = temperature < COLDEST;
    float warmth = greedy ? 1.0f : 1.0f / temperature;
    room.weigh(logits, vocabulary, warmth);
    if (!(room.total < INFINITY)) return {0, NAN};  // NaN or infinity among the logits: the caller's to report
    int token = 0;
    double u = uniform(s.seed[owner], place);
    if (greedy) {
        while (logits[token] != room.top) token++;
    } else if (top_p < 1.0f || s.top_k[owner] || min_p > 0.0f) {
        room.cut(vocabulary, top_p, s.top_k[owner], min_p);
        token = room.invert_likely(u);
    } else {
        token = room.invert(u * room.total);
    }
    return {token, float(double((logits[token] - room.top) * warmth) - std::log(room.total))};
}

inline Row& room() {  // of this thread
    static thread_local Row row;
    return row;
}

}  // namespace draw
