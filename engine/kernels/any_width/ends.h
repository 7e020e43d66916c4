/* Ends of a product that take a panel's two halves together, for registers of any width: a gated unit, and RoPE.
 *
 * The file that includes this one includes vector.h of its width before, defines
 *
 *   struct columns                          what turns the sums of LANES outputs into x W + b
 *   columns_of(d, column)                   that of the outputs from column on
 *   result_of(columns, sums)                LANES numbers of x W + b
 *   store_result(d, at, y)                  store them, in the format that is wanted
 *
 * and does so between TARGET and END_TARGET. The number of outputs is a multiple of PANEL.
 */

enum { HALF = PANEL / 2 };

/* y = act(a) g: a panel has the a of HALF neurons, and then their g (Shazeer 2020). Half as many numbers are stored. */
INLINE void gate(const struct dense *d, enum activation kind, const int32_t *sums, int n, size_t row, size_t panel) {
    for (size_t part = 0; part < HALF; part += LANES) {
        const struct columns of_a = columns_of(d, panel * PANEL + part), of_g = columns_of(d, panel * PANEL + HALF + part);
        size_t at = row * (d->outputs / 2) + panel * HALF + part;
        for (int i = 0; i < n; i++, at += d->outputs / 2) {
            const vector a = result_of(of_a, sums + PANEL * i + part), g = result_of(of_g, sums + PANEL * i + HALF + part);
            store_result(d, at, multiply(activate_ps(a, kind), g));
        }
    }
}

/* Pairs of numbers turned by an angle for each position (Su et al. 2021): a panel has the first numbers of HALF pairs, and then
 * their second numbers. */
INLINE void turn(const struct dense *d, const int32_t *sums, int n, size_t row, size_t panel) {
    const size_t pairs = d->head / 2, first = panel % (d->head / PANEL) * HALF;
    for (size_t part = 0; part < HALF; part += LANES) {
        const struct columns of_left = columns_of(d, panel * PANEL + part), of_right = columns_of(d, panel * PANEL + HALF + part);
        size_t at = row * d->outputs + panel * PANEL + part, place = row % d->tokens;
        for (int i = 0; i < n; i++, at += d->outputs) {
            const vector left = result_of(of_left, sums + PANEL * i + part);
            const vector right = result_of(of_right, sums + PANEL * i + HALF + part);
            const vector c = load(d->cos + place * pairs + first + part), s = load(d->sin + place * pairs + first + part);
            store_result(d, at, multiply_less(right, s, multiply(left, c)));
            store_result(d, at + HALF, multiply_add(right, c, multiply(left, s)));
            if (++place == d->tokens) place = 0;
        }
    }
}

/* A function for each, so that the products that end otherwise stay as they are. */
static __attribute__((noinline)) void end_of_panel(const struct dense *d, const int32_t *sums, int n, size_t row, size_t panel) {
    if (d->ending == TURNED) {
        turn(d, sums, n, row, panel);
        return;
    }
    switch (d->activation) {
        case IDENTITY: gate(d, IDENTITY, sums, n, row, panel); break;
        case GELU: gate(d, GELU, sums, n, row, panel); break;
        case GELU_TANH: gate(d, GELU_TANH, sums, n, row, panel); break;
        case RELU: gate(d, RELU, sums, n, row, panel); break;
    }
}
