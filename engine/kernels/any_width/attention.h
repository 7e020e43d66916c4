/* What attention kernels of any width have in common: the keys that a block of queries sees, and rows that are fetched early.
 *
 * Without a window a query sees all keys of its text. With one the text is taken in chunks of queries, and what a chunk sees is
 * packed for it, so that it stays in the second cache.
 */
#ifndef FUSEDBERT_ATTENTION_H
#define FUSEDBERT_ATTENTION_H

#include <math.h>

#include "../kernels.h"

/* Keys are counted in blocks of so many, so that their scores fill registers. */
enum { KEYS = 16, CHUNK = 512 }; /* CHUNK: queries of a chunk, if there is a window */
static inline size_t longer(size_t x, size_t y) { return x > y ? x : y; }
static inline size_t padded(size_t keys) { return (keys + KEYS - 1) / KEYS * KEYS; }

/* The keys from first, a multiple of KEYS, up to last. A row of their scores has so many: last is rounded up. */
struct span {
    size_t first, last, row;
};

/* What the queries from begin up to end see in a text of this length. A key has the same lane in every span. */
static inline struct span span_of(const struct attention *a, size_t begin, size_t end, size_t length) {
    if (!a->window) return (struct span){0, length, padded(length)};
    const size_t first = begin > a->window ? (begin - a->window) / KEYS * KEYS : 0;
    const size_t last = length - end > a->window ? end + a->window : length;
    return (struct span){first, last, padded(last) - first};
}

/* The first query after the chunk that begins at one; without a window that is the end. */
static inline size_t chunk_end(const struct attention *a, size_t begin, size_t queries) {
    return a->window && queries - begin > CHUNK ? begin + CHUNK : queries;
}

/* The longest row of a span of so many queries, in a text of so many keys. */
static inline size_t longest_row(const struct attention *a, size_t queries, size_t keys) {
    const size_t seen = padded(2 * a->window + queries + KEYS - 1), all = padded(keys);
    return a->window && seen < all ? seen : all;
}

/* The most keys that are packed at a time, in a text of so many. */
static inline size_t most_packed(const struct attention *a, size_t keys) { return longest_row(a, CHUNK, keys); }

/* Fetch some rows of a head, so many bytes each, before they are needed: they lie far apart, and each would have to be waited for.
 * Those beyond the last are left out. */
static inline void fetch(const void *matrix, size_t stride, size_t bytes, size_t row, size_t rows, size_t last) {
    for (; rows-- && row < last; row++)
        for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)matrix + row * stride + i);
}

/* Hide what the queries from row up to end do not see of their keys: a score of minus infinity has no weight. */
static inline void hide(const struct attention *a, struct span span, size_t row, size_t end, float *scores) {
    if (!a->window) return;
    for (; row < end; row++, scores += span.row) {
        for (size_t j = span.first; j + a->window < row; j++) scores[j - span.first] = -INFINITY;
        for (size_t j = row + a->window + 1; j < span.last; j++) scores[j - span.first] = -INFINITY;
    }
}

#endif
