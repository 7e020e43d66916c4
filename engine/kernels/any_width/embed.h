/* Embeddings, for registers of any width. The file that includes this one includes vector.h of its width before, and does so
 * between TARGET and END_TARGET; each of its kernels says how to add the word's vector.
 */
#include "norm.h"

typedef vector add_word(const struct embed *e, size_t at, float scale, size_t some, vector to); /* at: of the table's numbers */

INLINE void embed_unit(const struct embed *e, size_t unit, add_word *add) {
    const struct norm *n = &e->norm;
    const size_t width = n->width, first = unit * NORM_ROWS, last = first + NORM_ROWS < n->rows ? first + NORM_ROWS : n->rows;
    for (size_t row = first; row < last; row++) {
        const size_t at = row * width, word = row_of(e->ids[row], e->words);
        const float *position = e->position ? e->position + position_of(e, row) * width : NULL, scale = e->scale ? e->scale[word] : 1;
        const float *segment = e->segments ? e->token_type + row_of(e->segments[row], e->kinds) * width : NULL;
        for (size_t i = 0; i < width; i += LANES) {
            const vector to = position ? load_some(position + i, width - i) : fill(0);
            store_some(n->y + at + i, width - i, add(e, word * width + i, scale, width - i, to));
        }
        norm_row(n, n->y + at, n->y + at, segment, n->y8 ? n->y8 + at : NULL, n->y16 ? n->y16 + at : NULL);
    }
}

INLINE vector add_int8(const struct embed *e, size_t at, float scale, size_t some, vector to) {
    return multiply_add(load_int8((const int8_t *)e->word + at, some), fill(scale), to);
}
static void embed_int8_unit(void *operation, size_t unit) { embed_unit(operation, unit, add_int8); }
