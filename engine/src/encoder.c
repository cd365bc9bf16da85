#include "encoder.h"

#include <string.h>

#include "lanes.h"

void *arena_take(arena *from, size_t count, size_t size) {
    const size_t bytes = (count * size + MODEL_ALIGN - 1) / MODEL_ALIGN * MODEL_ALIGN;
    void *given = from->base ? from->base + from->at : NULL;
    from->at = bytes < SIZE_MAX - from->at ? from->at + bytes : SIZE_MAX; /* more than a 32-bit processor can count */
    return given;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t remembered_size(const model_header *m) {
    return m->state == STATE_INT8 ? sizeof(int8_t) : m->state == STATE_BFLOAT16 ? sizeof(uint16_t) : sizeof(float);
}
static size_t padded(size_t n) { return (n + LANES - 1) / LANES * LANES; }

void encoder_place(encoder *e, const model_header *model, uint32_t most, arena *memory) {
    const size_t mels = model->mels, width = model->width, channels = model->stem_channels, n = most;
    const size_t window = model->lookahead + model->subsampling, context = model->left_context + 1;
    const int linear = model->attention == ATTENTION_LINEAR;
    const size_t remembered = remembered_size(model);
    /* Of scratch memory: the most numbers that a frame has in any layer. */
    size_t narrow = width, wide = padded(model->units), lot = 0;
    e->model = model;
    e->level = kernels_named(NULL);
    e->most = most;
    e->tail = arena_take(memory, model->lookahead * mels, sizeof(float));
    e->blocks = arena_take(memory, model->layers, sizeof(block_state));
    for (uint32_t i = 0; i < model->layers; i++) {
        const layer_shape *layer = &model_layers(model)[i];
        const size_t attended = attention_width(model, i), convolved = layer->channels;
        block_state b;
        b.keys = arena_take(memory, context * attended, linear ? sizeof(float) : remembered);
        b.values = arena_take(memory, (linear ? model->head_size : context) * attended, linear ? sizeof(float) : remembered);
        b.past = arena_take(memory, model->kernel * convolved, remembered);
        narrow = larger(narrow, larger(attended, convolved));
        wide = larger(larger(wide, larger(layer->ffn_in, layer->ffn_out)), larger(3 * attended, 2 * convolved));
        if (!linear) lot = larger(lot, attention_lot(layer->heads));
        if (memory->base) e->blocks[i] = b;
    }
    const size_t turned = padded((mels + 4) * window + 3), stem_width = channels * (mels / 4);
    const size_t positions = padded((mels / 2 + 2) * channels);
    /* By lifetime: of the stem only its rows are there when they are projected, and they are gone when the blocks run. */
    reader weights = model_weights(model);
    const int reads_window = !read_linear(&weights, model->stem_channels, 5 * (uint32_t)window).weights; /* itself, not bytes made of it */
    arena convolving = *memory, running = *memory;
    e->stem = arena_take(&convolving, n * stem_width, sizeof(float));
    const size_t rows_end = convolving.at;
    arena turning = convolving;
    e->positions = arena_take(&convolving, positions, sizeof(float));
    if (reads_window) turning = convolving;
    e->window = arena_take(&turning, turned, sizeof(float));
    e->convolved = arena_take(&convolving, model->stem_layers ? mels / 2 * channels : 0, sizeof(float));
    e->h = arena_take(&running, n * narrow, sizeof(float));
    e->wide = arena_take(&running, n * wide, sizeof(float));
    e->scores = arena_take(&running, padded(context * lot), sizeof(float));
    running.at = larger(running.at, rows_end);
    e->x = arena_take(&running, n * width, sizeof(float));
    memory->at = larger(running.at, larger(convolving.at, turning.at));
    e->scale = arena_take(memory, n, sizeof(float));
    e->bytes = arena_take(memory, larger(n * larger(larger(narrow, wide), stem_width), larger(turned, positions)) + GROUP, 1);
}

void encoder_reset(encoder *e) {
    const model_header *model = e->model;
    e->seen = e->key_row = e->past_row = 0;
    memset(e->tail, 0, model->lookahead * model->mels * sizeof(float));
    for (uint32_t i = 0; i < model->layers; i++) {
        const int linear = model->attention == ATTENTION_LINEAR;
        const size_t size = remembered_size(model), attended = attention_width(model, i) * (linear ? sizeof(float) : size);
        memset(e->blocks[i].keys, 0, (model->left_context + 1) * attended);
        memset(e->blocks[i].values, 0, (linear ? model->head_size : model->left_context + 1) * attended);
        memset(e->blocks[i].past, 0, (size_t)model->kernel * model_layers(model)[i].channels * size);
    }
}

/* `rows` rows of bytes lie there: what a kernel reads behind them, to fill up a group of int4 weights, is 0 and not whatever
 * lay there before. Between rows it reads the beginning of the next one. */
static void end_bytes(encoder *e, size_t count) { memset(e->bytes + count, 0, GROUP); }

/* y = w x, or y += w x, for rows each with a scale of its own. */
static void multiply_rows(encoder *e, const linear *w, const float *x, uint32_t rows, float *y, size_t stride, int add) {
    rows_in in = {e->bytes, e->scale, 1, x, w->inputs};
    if (w->weights) {
        for (uint32_t r = 0; r < rows; r++)
            e->scale[r] = e->level->quantize(x + (size_t)r * w->inputs, w->inputs, e->bytes + (size_t)r * w->inputs);
        end_bytes(e, (size_t)rows * w->inputs);
    }
    e->level->multiply(w, &in, rows, y, stride, add);
}

/* The same for rows that overlap, `step` numbers apart in one array of `count`. */
static void multiply_windows(encoder *e, const linear *w, const float *x, size_t count, size_t step, uint32_t rows, float *y) {
    rows_in in = {e->bytes, e->scale, 0, x, step};
    if (w->weights) {
        e->scale[0] = e->level->quantize(x, padded(count), e->bytes);
        end_bytes(e, padded(count));
    }
    e->level->multiply(w, &in, rows, y, (size_t)w->blocks * LANES, 0);
}

/* x normalised in place, times a gain, plus a bias; of batch normalisation that is all. */
static void normalize_with_gain(encoder *e, reader *weights, uint32_t frames) {
    const uint32_t width = e->model->width;
    const float *gain = read_floats(weights, width), *bias = read_floats(weights, width);
    for (uint32_t n = 0; n < frames; n++) {
        float *x = e->x + n * width;
        if (e->model->norm == NORM_LAYER) e->level->normalize(x, width, x);
        for (uint32_t i = 0; i < width; i++) x[i] = x[i] * gain[i] + bias[i];
    }
}

/* Feature frames from `lookahead` before a step to its end -> one row of the projection's inputs. */
static void run_stem_convolutions(encoder *e, reader *weights, const float *const *frames, float *out) {
    const model_header *m = e->model;
    const uint32_t size = m->lookahead + m->subsampling, half = m->mels / 2, channels = m->stem_channels;
    const linear patch = read_linear(weights, channels, 5 * size);
    /* By mel, so that the five mels of a position lie in a row; two mels of silence at either end. */
    for (uint32_t t = 0; t < size; t++)
        for (uint32_t i = 0; i < m->mels; i++) e->window[(i + 2) * size + t] = frames[t][i];
    memset(e->window, 0, 2 * size * sizeof(float));
    memset(e->window + (m->mels + 2) * size, 0, (padded((m->mels + 4) * size + 3) - (m->mels + 2) * size) * sizeof(float));
    float *inner = e->positions + channels; /* one position of silence at either end */
    multiply_windows(e, &patch, e->window, (m->mels + 4) * size, 2 * size, half, inner);
    e->level->silu(inner, half * channels);
    memset(e->positions, 0, channels * sizeof(float));
    memset(inner + half * channels, 0, channels * sizeof(float));
    for (uint32_t i = 0; i < m->stem_layers; i++) {
        const linear deepen = read_linear(weights, channels, 3 * channels);
        multiply_windows(e, &deepen, e->positions, (half + 2) * channels, channels, half, e->convolved);
        e->level->silu(e->convolved, half * channels);
        for (uint32_t k = 0; k < half * channels; k++) inner[k] += e->convolved[k];
    }
    const linear mix = read_linear(weights, channels, 3 * channels);
    multiply_windows(e, &mix, e->positions, (half + 2) * channels, 2 * channels, half / 2, out);
    e->level->silu(out, half / 2 * channels);
}

static void run_stem(encoder *e, reader *weights, const float *features, uint32_t frames) {
    const model_header *m = e->model;
    const uint32_t stem_width = m->stem_channels * (m->mels / 4);
    reader after = *weights;
    for (uint32_t n = 0; n < frames; n++) {
        after = *weights; /* every frame goes through the same layers */
        const float *window[MODEL_MAX_WINDOW];
        for (uint32_t t = 0; t < m->lookahead + m->subsampling; t++) {
            const uint32_t at = n * m->subsampling + t;
            window[t] = at < m->lookahead ? e->tail + at * m->mels : features + (at - m->lookahead) * m->mels;
        }
        run_stem_convolutions(e, &after, window, e->stem + n * stem_width);
    }
    *weights = after;
    const linear project = read_linear(weights, m->width, stem_width);
    multiply_rows(e, &project, e->stem, frames, e->x, m->width, 0);
    normalize_with_gain(e, weights, frames);
    /* The last `lookahead` frames stay for the next call. */
    const uint32_t given = frames * m->subsampling, kept = given < m->lookahead ? m->lookahead - given : 0;
    memmove(e->tail, e->tail + (m->lookahead - kept) * m->mels, kept * m->mels * sizeof(float));
    memcpy(e->tail + kept * m->mels, features + (given - (m->lookahead - kept)) * m->mels,
           (m->lookahead - kept) * m->mels * sizeof(float));
}

/* What the linear layers of a module read. Batch normalisation lies in their weights. */
static const float *normalized(encoder *e, uint32_t frames) {
    if (e->model->norm == NORM_BATCH) return e->x;
    for (uint32_t n = 0; n < frames; n++)
        e->level->normalize(e->x + n * e->model->width, e->model->width, e->h + n * e->model->width);
    return e->h;
}

/* x += half of the feed-forward module, whose half lies in its weights. */
static void feed_forward(encoder *e, reader *weights, uint32_t inner, uint32_t frames) {
    const model_header *m = e->model;
    const linear expand = read_linear(weights, inner, m->width), contract = read_linear(weights, m->width, inner);
    multiply_rows(e, &expand, normalized(e, frames), frames, e->wide, inner, 0);
    e->level->silu(e->wide, (size_t)frames * inner);
    multiply_rows(e, &contract, e->wide, frames, e->x, m->width, 1);
}

/* x into a row of what is remembered, rounded to the nearest number that is stored there, half to even. */
static void remember(const model_header *m, const float *x, void *rows, uint32_t row, size_t width) {
    const size_t at = row * width;
    switch (m->state) {
    case STATE_INT8:
        for (size_t i = 0; i < width; i++) { /* what is no number becomes one */
            const float above = x[i] > -127.0f ? x[i] : -127.0f, rounded = (above < 127.0f ? above : 127.0f) + ROUND;
            uint32_t bits;
            memcpy(&bits, &rounded, sizeof bits);
            ((int8_t *)rows)[at + i] = (int8_t)(bits & 0xff);
        }
        break;
    case STATE_BFLOAT16:
        for (size_t i = 0; i < width; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            ((uint16_t *)rows)[at + i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        }
        break;
    default:
        memcpy((float *)rows + at, x, width * sizeof(float));
    }
}

/* Attention to the last frames, queries, keys and values of `width` numbers in `wide`, the result in `h`. */
static void attend_window(encoder *e, block_state *state, const float *bias, uint32_t width, uint32_t heads, uint32_t frames) {
    const model_header *m = e->model;
    const uint32_t ring = m->left_context + 1;
    uint32_t row = e->key_row, seen = e->seen;
    for (uint32_t n = 0; n < frames; n++) {
        const float *query = e->wide + (size_t)n * 3 * width;
        remember(m, query + width, state->keys, row, width);
        remember(m, query + 2 * width, state->values, row, width);
        const uint32_t window = seen + 1, first = (row + ring - seen) % ring;
        e->level->attend(query, state->keys, state->values, bias, width, heads, window, first, ring, e->scores,
                         e->h + (size_t)n * width, (int)m->state);
        row = row + 1 == ring ? 0 : row + 1;
        seen = seen < m->left_context ? seen + 1 : seen;
    }
}

static void attention(encoder *e, reader *weights, uint32_t layer, uint32_t frames) {
    const model_header *m = e->model;
    const uint32_t width = attention_width(m, layer), heads = model_layers(m)[layer].heads;
    const linear query_key_value = read_linear(weights, 3 * width, m->width), output = read_linear(weights, m->width, width);
    multiply_rows(e, &query_key_value, normalized(e, frames), frames, e->wide, 3 * width, 0);
    if (m->attention == ATTENTION_LINEAR) {
        const float *kept = read_floats(weights, heads);
        for (uint32_t n = 0; n < frames; n++)
            e->level->recall(e->wide + (size_t)n * 3 * width, kept, width, heads, e->blocks[layer].keys, e->blocks[layer].values,
                             e->h + (size_t)n * width);
    } else {
        const float *bias = read_floats(weights, (size_t)heads * (m->left_context + 1));
        attend_window(e, &e->blocks[layer], bias, width, heads, frames);
    }
    multiply_rows(e, &output, e->h, frames, e->x, m->width, 1);
}

static void convolution(encoder *e, reader *weights, uint32_t layer, uint32_t frames) {
    const model_header *m = e->model;
    const uint32_t width = model_layers(m)[layer].channels;
    void *past = e->blocks[layer].past;
    const linear gate = read_linear(weights, 2 * width, m->width);
    const numbers taps = read_taps(weights, (size_t)m->kernel * width), bias = read_taps(weights, width);
    const float *middle = m->state == STATE_INT8 ? read_floats(weights, width) : NULL; /* what is stored as 0 */
    const linear output = read_linear(weights, m->width, width);
    multiply_rows(e, &gate, normalized(e, frames), frames, e->wide, 2 * width, 0);
    uint32_t row = e->past_row;
    for (uint32_t n = 0; n < frames; n++) {
        float *h = e->h + (size_t)n * width;
        e->level->gate(e->wide + (size_t)n * 2 * width, width, h);
        for (uint32_t i = 0; middle && i < width; i++) h[i] -= middle[i];
        remember(m, h, past, row, width);
        row = row + 1 == m->kernel ? 0 : row + 1; /* now the oldest */
        e->level->depthwise(past, &taps, &bias, width, m->kernel, row, h, (int)m->state);
    }
    multiply_rows(e, &output, e->h, frames, e->x, m->width, 1);
}

void encoder_run(encoder *e, const float *features, uint32_t frames, float *log_probs, float *hidden) {
    const model_header *m = e->model;
    reader weights = model_weights(m);
    run_stem(e, &weights, features, frames);
    for (uint32_t i = 0; i < m->layers; i++) {
        const layer_shape *layer = &model_layers(m)[i];
        feed_forward(e, &weights, layer->ffn_in, frames);
        attention(e, &weights, i, frames);
        convolution(e, &weights, i, frames);
        feed_forward(e, &weights, layer->ffn_out, frames);
        normalize_with_gain(e, &weights, frames);
    }
    e->key_row = (e->key_row + frames) % (m->left_context + 1);
    e->past_row = (e->past_row + frames) % m->kernel;
    e->seen = m->left_context - e->seen < frames ? m->left_context : e->seen + frames;
    if (hidden) memcpy(hidden, e->x, (size_t)frames * m->width * sizeof(float));
    const linear head = read_linear(&weights, m->units, m->width);
    const size_t stride = padded(m->units);
    multiply_rows(e, &head, e->x, frames, e->wide, stride, 0);
    for (uint32_t n = 0; n < frames; n++) e->level->log_softmax(e->wide + n * stride, m->units, log_probs + (size_t)n * m->units);
}
