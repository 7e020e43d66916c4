/* The mathematics of every kernel in plain C, one number at a time and in double. Tests compare the kernels with it; no library
 * contains it. The structs, and the units that the work is cut into, are explained in kernels.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../../engine/kernels/levels.h"

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static double activate(double x, enum activation kind) {
    if (kind != IDENTITY && x == -INFINITY) return 0; /* the limit; the equations below multiply it by 0 */
    if (kind == GELU) return x * 0.5 * erfc(-x / sqrt(2)); /* x Phi(x) (Hendrycks and Gimpel 2016) */
    if (kind == GELU_TANH) return x * 0.5 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    if (kind == RELU) return x > 0 ? x : 0;
    return x;
}

/* ONNX QuantizeLinear. NaN becomes 0. */
static uint8_t quantize(double y, struct rounding to) {
    const double q = nearbyint(y * to.inverse_scale) + to.zero_point;
    return (uint8_t)(q >= 255 ? 255 : q > 0 ? q : 0);
}

/* The nearest number with 8 significant bits, ties to even. */
static double to_bf16(double x) {
    int exponent;
    const double fraction = frexp((double)(float)x, &exponent);
    return ldexp(nearbyint(fraction * 256), exponent - 8);
}

static bf16 bits_of(double x) {
    const float rounded = (float)to_bf16(x);
    uint32_t bits;
    memcpy(&bits, &rounded, 4);
    return (bf16)(bits >> 16);
}

static double from_bits(bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

/* Place of the weight of an input and an output in its panel; an instruction takes so many inputs. */
static size_t in_panel(const struct dense *d, size_t input, size_t output, size_t takes) {
    return ((output / PANEL * d->inputs / takes + input / takes) * PANEL + output % PANEL) * takes + input % takes;
}

static int32_t weight_at(const struct dense *d, size_t input, size_t output) {
    return ((const int8_t *)d->weight)[in_panel(d, input, output, 4)];
}

static void dense_offsets(const struct dense *d, int32_t zero_point, int32_t *offset) {
    for (size_t output = 0; output < PANEL * dense_panels(d); output++) {
        offset[output] = 0;
        for (size_t i = 0; i < d->inputs; i++) offset[output] += zero_point * weight_at(d, i, output);
    }
}

static double int8_sum(const struct dense *d, size_t row, size_t output) {
    int32_t sum = 0;
    for (size_t k = 0; k < d->inputs; k++) sum += ((const uint8_t *)d->x)[row * d->inputs + k] * weight_at(d, k, output);
    return (double)(sum - d->offset[output]) * d->scale[output];
}

static double bf16_sum(const struct dense *d, size_t row, size_t output) {
    const bf16 *x = d->x, *w = d->weight;
    double sum = 0;
    for (size_t k = 0; k < d->inputs; k++)
        sum += from_bits(x[row * d->inputs + k]) * from_bits(w[in_panel(d, k, output, 2)]);
    return sum;
}

static double fp32_sum(const struct dense *d, size_t row, size_t output) {
    const float *x = d->x, *w = d->weight;
    double sum = 0;
    for (size_t k = 0; k < d->inputs; k++) sum += (double)x[row * d->inputs + k] * w[k * d->outputs + output];
    return sum;
}

static void store(const struct dense *d, size_t at, double y) {
    if (d->y) d->y[at] = (float)y;
    else if (d->y16) d->y16[at] = bits_of(y);
    else d->y8[at] = quantize(y, d->rounding);
}

/* The end of a product in which the two halves of a panel go together: for the numbers x and z of the same neuron or pair, of
 * which z is 16 places to the right. */
static void end_together(const struct dense *d, double x, double z, size_t row, size_t column) {
    const size_t panel = column / PANEL, i = column % PANEL, pair = panel % (d->head ? d->head / PANEL : 1) * 16 + i;
    if (d->ending == GATED) {
        store(d, row * (d->outputs / 2) + panel * 16 + i, activate(x, d->activation) * z);
        return;
    }
    const size_t angle = row % d->tokens * (d->head / 2) + pair, at = row * d->outputs + column;
    store(d, at, x * d->cos[angle] - z * d->sin[angle]);
    store(d, at + 16, z * d->cos[angle] + x * d->sin[angle]);
}

static void dense(const struct dense *d, size_t unit, double (*sum)(const struct dense *, size_t, size_t)) {
    const size_t panels = dense_panels(d), column = unit % panels * PANEL, row = unit / panels * DENSE_ROWS;
    for (size_t i = row; i < smaller(row + DENSE_ROWS, d->rows); i++)
        for (size_t j = column; j < smaller(column + PANEL, d->outputs); j++) {
            const double y = sum(d, i, j) + (d->bias ? d->bias[j] : 0);
            if (d->ending == ACTIVATED) store(d, i * d->outputs + j, activate(y, d->activation));
            else if (j % PANEL < 16) end_together(d, y, sum(d, i, j + 16) + (d->bias ? d->bias[j + 16] : 0), i, j);
        }
}
static void dense_int8_unit(void *operation, size_t unit) { dense(operation, unit, int8_sum); }
static void dense_bf16_unit(void *operation, size_t unit) { dense(operation, unit, bf16_sum); }
static void dense_fp32_unit(void *operation, size_t unit) { dense(operation, unit, fp32_sum); }

/* A number of q, k or v. */
static double number_of(const struct attention *a, const void *matrix, size_t i) {
    return a->format == FLOAT32 ? (double)((const float *)matrix)[i] : from_bits(((const bf16 *)matrix)[i]);
}

/* How a kernel rounds what it multiplies, given the step if it has one. */
typedef double rounding_of(double x, double step);
static double unrounded(double x, double step) { return (void)step, x; }
static double eight_digits(double x, double step) { return (void)step, to_bf16(x); }
static double whole_steps(double x, double step) { return nearbyint(x / step) * step; }

/* The step that makes the largest of count rows of a head so many steps; NaN if one of their numbers is not finite. */
static double step_of(const struct attention *a, const void *matrix, size_t start, size_t count, double limit) {
    double largest = 1e-14;
    for (size_t i = 0; i < count * a->head; i++) {
        const double x = number_of(a, matrix, start + i / a->head * a->heads * a->head + i % a->head);
        if (!isfinite(x)) return NAN;
        if (fabs(x) > largest) largest = fabs(x);
    }
    return largest / limit;
}

/* The keys that the queries from begin up to end see in a text of this length: from *first up to what is returned. */
static size_t keys_of(const struct attention *a, size_t begin, size_t end, size_t length, size_t *first) {
    *first = a->window && begin > a->window ? begin - a->window : 0;
    return a->window ? smaller(end + a->window, length) : length;
}

/* The step of a head's keys or values for a query. With a window it is that of its chunk of 512 queries, whose keys begin at a
 * multiple of 16. */
static double step_at(const struct attention *a, const void *matrix, size_t start, size_t query, size_t length, double limit) {
    const size_t chunk = query / 512 * 512;
    size_t first;
    const size_t last = keys_of(a, chunk, chunk + 512, length, &first);
    first = first / 16 * 16;
    return step_of(a, matrix, start + first * a->heads * a->head, last - first, limit);
}

/* q_i K[b], or k_j Q[b], of a head and a bucket: row begins at one of a matrix, and has a step; a bucket's is that of its largest. */
static double product_with(const struct disentangled *d, const bf16 *table, size_t of_head, size_t bucket, const void *matrix,
                           size_t row, double row_step, double limit, rounding_of *rounded) {
    const struct attention *a = &d->attention;
    const bf16 *column = table + (of_head * a->head / 2 * d->columns + bucket) * 2;
    double sum = 0, largest = 1e-14;
    for (size_t n = 0; n < a->head; n++) largest = fmax(largest, fabs(from_bits(column[n / 2 * 2 * d->columns + n % 2])));
    for (size_t n = 0; n < a->head; n++)
        sum += rounded(number_of(a, matrix, row + n), row_step) *
               rounded(from_bits(column[n / 2 * 2 * d->columns + n % 2]), largest / limit);
    return sum;
}

/* Attention, whose inputs and probabilities are rounded as the kernel rounds them. In 16 bits no sum of products may leave 32.
 * d: its positions, or NULL (He et al. 2021): q_i K[b(i - j)] + k_j Q[b(i - j)], or a number. */
static void attention(const struct attention *a, const struct disentangled *d, size_t unit, rounding_of *rounded) {
    const size_t text = unit / a->heads, hidden = a->heads * a->head, start = unit % a->heads * a->head;
    const size_t length = a->lengths ? (size_t)a->lengths[text] : a->keys, keys = text * a->keys * hidden + start;
    const size_t queries = a->queries == a->keys ? length : a->queries, first = text * a->queries * hidden + start;
    const double limit = floor(sqrt(2.1e9 / (double)a->head)), v_limit = 4095;
    const size_t wide = (length + 15) / 16 * 16, seen = a->window ? smaller((2 * a->window + 31) / 16 * 16, wide) : wide;
    double k_step = 0, v_step = 0;
    double *p = malloc((length + 1) * sizeof *p);
    for (size_t i = 0; i < a->queries; i++) {
        const size_t at = first + i * hidden;
        const double q_step = step_of(a, a->q, at, 1, limit);
        double largest = -INFINITY, total = 0;
        const int padding = !length || i >= queries;
        size_t from, to = keys_of(a, i, i + 1, length, &from);
        if (padding && a->window) from = to = 0;
        else if (i == 0 || (a->window && i % 512 == 0)) {
            k_step = step_at(a, a->k, keys, i, length, limit), v_step = step_at(a, a->v, keys, i, length, v_limit);
        }
        for (size_t j = from; j < to; j++) {
            const size_t bucket = d ? (size_t)d->rising[d->middle + i - j] : 0, of_head = unit % a->heads;
            p[j] = d && d->position_bias ? d->position_bias[of_head * d->columns + bucket] : 0;
            if (d && d->position_key) p[j] += product_with(d, d->position_key, of_head, bucket, a->q, at, q_step, limit, rounded);
            if (d && d->position_query)
                p[j] += product_with(d, d->position_query, of_head, bucket, a->k, keys + j * hidden, k_step, limit, rounded);
            for (size_t n = 0; n < a->head; n++)
                p[j] += rounded(number_of(a, a->q, at + n), q_step) * rounded(number_of(a, a->k, keys + j * hidden + n), k_step);
            if (p[j] > largest) largest = p[j];
        }
        for (size_t j = from; j < to; j++) total += p[j] = exp(p[j] - largest);
        const double p_step = 1 / fmin(32767, (2.1e9 / v_limit - (double)seen) / total);
        for (size_t n = 0; n < a->head; n++) {
            double sum = 0;
            for (size_t j = from; j < to; j++)
                sum += rounded(p[j], p_step) * rounded(number_of(a, a->v, keys + j * hidden + n), v_step);
            const double y = padding ? 0 : sum / total;
            if (a->y16) a->y16[at + n] = bits_of(y);
            else a->y8[at + n] = quantize(y, a->rounding);
        }
    }
    free(p);
}
static void attention_unit(void *operation, size_t unit) { attention(operation, NULL, unit, unrounded); }
static void bf16_attention_unit(void *operation, size_t unit) { attention(operation, NULL, unit, eight_digits); }
static void int16_attention_unit(void *operation, size_t unit) { attention(operation, NULL, unit, whole_steps); }
static void disentangled(const struct disentangled *d, size_t unit, rounding_of *rounded) {
    const size_t batch = d->attention.batch;
    attention(&d->attention, d, unit % batch * d->attention.heads + unit / batch, rounded);
}
static void disentangled_unit(void *operation, size_t unit) { disentangled(operation, unit, eight_digits); }
static void int16_disentangled_unit(void *operation, size_t unit) { disentangled(operation, unit, whole_steps); }

static size_t attention_scratch(const struct attention *a) { return (void)a, 0; }

static void norm_unit(void *operation, size_t unit) {
    const struct norm *n = operation;
    for (size_t row = unit * NORM_ROWS; row < smaller((unit + 1) * NORM_ROWS, n->rows); row++) {
        const size_t at = row * n->width;
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n->width; i++) {
            n->y[at + i] = n->x[at + i];
            if (n->residual) n->y[at + i] += (n->factor ? n->factor[i] : 1) * n->residual[at + i];
            mean += n->y[at + i] / (double)n->width;
        }
        for (size_t i = 0; i < n->width; i++) variance += (n->y[at + i] - mean) * (n->y[at + i] - mean) / (double)n->width;
        for (size_t i = 0; i < n->width; i++) {
            const double y = (n->y[at + i] - mean) / sqrt(variance + n->epsilon) * n->gamma[i] + n->beta[i];
            if (!n->keeps_sum) n->y[at + i] = (float)y;
            if (n->y8) n->y8[at + i] = quantize(y, n->rounding);
            if (n->y16) n->y16[at + i] = bits_of(y);
        }
    }
}

static void gelu_unit(void *operation, size_t unit) {
    const struct gelu *g = operation;
    for (size_t i = unit * GELU_NUMBERS; i < smaller((unit + 1) * GELU_NUMBERS, g->count); i++)
        g->y[i] = (float)activate(g->x[i], g->kind);
}

static double from_half(uint16_t x) {
    const int exponent = x >> 10 & 31;
    const double size = exponent ? ldexp(1024 + (x & 1023), exponent - 25) : ldexp(x & 1023, -24);
    return x >> 15 ? -size : size;
}

static double int8_word(const struct embed *e, size_t word, size_t i) {
    return ((const int8_t *)e->word)[word * e->norm.width + i] * (double)e->scale[word];
}
static double half_word(const struct embed *e, size_t word, size_t i) {
    return from_half(((const uint16_t *)e->word)[word * e->norm.width + i]);
}

/* Positions are counted here from the text's first token on. */
static void embed(const struct embed *e, size_t unit, double (*word_at)(const struct embed *, size_t, size_t)) {
    const size_t width = e->norm.width;
    for (size_t row = unit * NORM_ROWS; row < smaller((unit + 1) * NORM_ROWS, e->norm.rows); row++) {
        const int64_t id = e->ids[row], kind = e->segments ? e->segments[row] : 0;
        size_t position = row % e->tokens, count = 0;
        for (size_t i = row - position; i <= row; i++) count += e->ids[i] != e->padding_id;
        if (e->counted) position = (size_t)e->padding_id + (id == e->padding_id ? 0 : count);
        for (size_t i = 0; i < width; i++) {
            double sum = word_at(e, (size_t)(id < 0 ? id + (int64_t)e->words : id), i);
            if (e->position) sum += e->position[position * width + i];
            if (e->segments) sum += e->token_type[(size_t)(kind < 0 ? kind + (int64_t)e->kinds : kind) * width + i];
            e->norm.y[row * width + i] = (float)sum;
        }
    }
    struct norm n = e->norm;
    n.x = n.y, n.residual = NULL;
    norm_unit(&n, unit);
}
static void embed_int8_unit(void *operation, size_t unit) { embed(operation, unit, int8_word); }
static void embed_half_unit(void *operation, size_t unit) { embed(operation, unit, half_word); }

const struct kernel REFERENCE[OPERATIONS] = {
    [DENSE_INT8] = {.unit = dense_int8_unit, .offsets = dense_offsets},
    [DENSE_BF16] = {.unit = dense_bf16_unit},
    [DENSE_FP32] = {.unit = dense_fp32_unit},
    [ATTENTION] = {.unit = attention_unit, .scratch = attention_scratch},
    [NORM] = {.unit = norm_unit},
    [GELU_ALONE] = {.unit = gelu_unit},
    [EMBED_INT8] = {.unit = embed_int8_unit},
    [EMBED_BF16] = {.unit = embed_half_unit},
    [DISENTANGLED] = {.unit = disentangled_unit, .scratch = attention_scratch},
};
/* The same for the kernels that round to bfloat16, or to 16-bit fixed point, before they multiply. */
const struct kernel BF16_ATTENTION = {.unit = bf16_attention_unit, .scratch = attention_scratch};
const struct kernel INT16_ATTENTION = {.unit = int16_attention_unit, .scratch = attention_scratch};
const struct kernel INT16_DISENTANGLED = {.unit = int16_disentangled_unit, .scratch = attention_scratch};
