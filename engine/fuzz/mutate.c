/* Changes to an input that come past the loader's first checks: numbers of a header or of a command set's tree become odd
 * ones, a model's shape changes and its file with it, and checksums are mended, but for some. */
#include <stddef.h>
#include <string.h>

#include "decoder.h"
#include "fuzz.h"
#include "model.h"

#define MOST_STEPS 64 /* bytes behind the file that say what to do */
#define MOST_LAYERS (MODEL_ALIGN / sizeof(layer_shape)) /* for which there is room in every file */

static uint32_t draw(uint32_t *random, uint32_t below) { /* xorshift */
    *random ^= *random << 13, *random ^= *random >> 17, *random ^= *random << 5;
    return *random % below;
}

static int is_model(const uint8_t *data, size_t end) { return end >= sizeof(model_header) && !memcmp(data, "KOULING", 8); }

/* Where the command set lies, in a model or by itself -> whether there is one. */
static int find_set(const uint8_t *data, size_t end, size_t *at, size_t *bytes) {
    model_header m;
    *at = 0, *bytes = end;
    if (is_model(data, end)) {
        memcpy(&m, data, sizeof m);
        *at = m.commands_at, *bytes = m.commands_bytes;
    }
    return *at <= end && *bytes <= end - *at && *bytes >= sizeof(commands_header) && !memcmp(data + *at, "KLWORDS", 8);
}

static void mend(uint8_t *data, size_t end) {
    const size_t at = offsetof(model_header, checksum), from = at + sizeof(uint32_t);
    if (end < from) return;
    const uint32_t sum = checksum(data + from, end - from);
    memcpy(data + at, &sum, sizeof sum);
}

static void mend_all(uint8_t *data, size_t size) {
    size_t at, bytes;
    const size_t end = file_end(data, size);
    if (is_model(data, end) && find_set(data, end, &at, &bytes)) mend(data + at, file_end(data + at, bytes));
    mend(data, end);
}

/* One four-byte number, at a place of `count` from `at` on, becomes one that something may stumble over. */
static void make_odd(uint8_t *data, size_t at, size_t count, size_t end, uint32_t *random) {
    static const uint32_t odd[] = {0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4096, 65535, 65536, 1u << 20,
                                   0x7fffffff, 0x80000000, 0xffffffff, 0xffffffc0, /* and as floats, and as upper halves of */
                                   0x7fc00000, 0x7f800000, 0xff800000, 0x7f7fffff, 0x3f800000, 0x80000001, /* doubles: */
                                   0x7ff80000, 0x7ff00000, 0xfff00000, 0x7fefffff, 0x3ff00000, 0xbff00000};
    at += 4 * (size_t)draw(random, (uint32_t)count);
    if (at + 4 > end) return;
    uint32_t value;
    memcpy(&value, data + at, 4);
    switch (draw(random, 8)) {
    case 0: value++; break;
    case 1: value--; break;
    case 2: value += 64; break;
    case 3: value -= 64; break;
    case 4: value = draw(random, 2) ? value * 2 : value / 2; break;
    case 5: value = draw(random, 32); break;
    default: value = odd[draw(random, sizeof odd / sizeof *odd)];
    }
    memcpy(data + at, &value, 4);
}

/* Fields of a model's shape, or how one of its layers is stored, with the numbers that they may get. */
static void change_shape(model_header *m, uint8_t *kinds, uint32_t *random) {
    layer_shape *shapes = (layer_shape *)(void *)(m + 1), *layer = shapes + draw(random, m->layers);
    const struct { uint32_t *field; uint16_t multiple, least, most; } fields[] = {
        {&m->mels, 4, 2, 5},        {&m->layers, 1, 1, MOST_LAYERS}, {&layer->heads, 1, 1, 16},    {&m->width, 16, 1, 4},
        {&m->kernel, 1, 2, 20},     {&layer->ffn_in, 16, 1, 4},  {&m->stem_channels, 16, 1, 3}, {&m->stem_layers, 1, 0, 2},
        {&m->subsampling, 1, 1, 8}, {&m->lookahead, 1, 0, 16},   {&m->step_frames, 1, 1, 64},  {&m->left_context, 1, 1, 80},
        {&layer->ffn_out, 16, 1, 4}, {&layer->channels, 16, 1, 4}, {&m->head_size, 1, 1, 32},  {&m->attention, 1, 0, 1},
        {&m->units, 1, 2, 8},       {&m->priming_frames, 1, 0, 20}, {&m->state, 1, STATE_FLOAT, STATE_INT8},
        {&m->taps, 1, TAPS_FLOAT, TAPS_BFLOAT16}};
    const uint32_t i = draw(random, sizeof fields / sizeof *fields + 6);
    if (i >= sizeof fields / sizeof *fields) {
        kinds[draw(random, m->linears)] = (uint8_t)draw(random, WEIGHTS_BFLOAT16 + 1);
        return;
    }
    const uint32_t before = *fields[i].field;
    *fields[i].field = fields[i].multiple * (fields[i].least + draw(random, fields[i].most - fields[i].least + 1u));
    const uint32_t by = *fields[i].field - before;
    m->linears += fields[i].field == &m->stem_layers ? by : fields[i].field == &m->layers ? 8 * by : 0; /* eight in a block */
    for (uint32_t more = before; fields[i].field == &m->layers && more < m->layers; more++) shapes[more] = shapes[more - 1];
    /* What goes together, else hardly any would be opened. */
    if (fields[i].field == &m->attention || m->attention == ATTENTION_LINEAR) m->left_context = m->attention == ATTENTION_LINEAR ? 0 : 20;
    for (uint32_t k = 0; k < m->layers; k++)
        while (shapes[k].heads < 64 && attention_width(m, k) % 16) shapes[k].heads++;
}

/* Another shape: the weights are as many as it needs then, and what lies behind them moves. -> size of the input. */
static size_t reshape(uint8_t *data, size_t size, size_t room, uint32_t *random) {
    static _Alignas(MODEL_ALIGN) uint8_t copy[1 << 17];
    const size_t end = file_end(data, size);
    size_t at, bytes;
    if (!is_model(data, end) || size > sizeof copy / 2 || !find_set(data, end, &at, &bytes)) return size;
    memcpy(copy, data, end);
    model_header *m = (model_header *)(void *)copy;
    if (m->weights_at % MODEL_ALIGN || m->weights_at < sizeof *m || at < MODEL_ALIGN || m->weights_at > at - MODEL_ALIGN || m->text_at < at) return size;
    if (m->layers - 1 >= MOST_LAYERS || m->stem_layers > 7 || m->linears - 1 > MODEL_ALIGN - 1) return size; /* too long a walk */
    change_shape(m, copy + m->weights_at, random);
    /* More of the same, of which the walk looks at what sparse layers keep. */
    for (size_t k = at; k < sizeof copy; k++) copy[k] = copy[k - (at - m->weights_at)];
    m->file_bytes = sizeof copy;
    const reader walked = walk_weights(m);
    const size_t moved = size - at;
    if (walked.failed || walked.at > room || moved > room - walked.at) return size;
    memmove(data + walked.at, data + at, moved);
    memcpy(data + m->weights_at, copy + m->weights_at, walked.at - m->weights_at);
    const uint32_t by = (uint32_t)(walked.at - at);
    m->commands_at += by, m->text_at += by, m->file_bytes = (uint32_t)end + by;
    memcpy(data, m, sizeof *m + MODEL_ALIGN); /* with the shapes of its layers */
    memcpy(data + walked.at + offsetof(commands_header, units), &m->units, sizeof m->units);
    return moved + walked.at;
}

/* The file ends early and says so: what is refused for its header needs no more. -> size of the input. */
static size_t cut(uint8_t *data, size_t size, uint32_t *random) {
    const size_t end = file_end(data, size), parts = end / MODEL_ALIGN;
    if (parts < 3) return size;
    const uint32_t at = MODEL_ALIGN * (draw(random, 2) ? 2 : 1 + draw(random, (uint32_t)parts - 1));
    memcpy(data + offsetof(model_header, file_bytes), &at, sizeof at);
    memmove(data + at, data + end, size - end);
    return size - (end - at);
}

static size_t mutate_once(uint8_t *data, size_t size, size_t room, uint32_t *random) {
    const size_t end = file_end(data, size), header = sizeof(model_header) / 4 - 2;
    size_t at, bytes;
    const int has_set = find_set(data, end, &at, &bytes);
    switch (draw(random, 12)) {
    case 0:
        return LLVMFuzzerMutate(data, size, room);
    case 1: case 2: /* what to do */
        if (end == room || size > end + MOST_STEPS) return end;
        return end + LLVMFuzzerMutate(data + end, size - end, room - end < MOST_STEPS ? room - end : MOST_STEPS);
    case 3:
        make_odd(data, 8, header, end, random);
        return size;
    case 4: case 5:
        if (has_set) make_odd(data, at + 8, draw(random, 2) ? header : bytes / 4, end, random);
        return size;
    case 6: /* anything; a model's tables and weights, mostly */
        make_odd(data, 0, end / 4 + 1, end, random);
        return size;
    case 7: /* what the first layer keeps, if it is sparse; bins of the mel triangles, and the first triangles */
        if (is_model(data, end) && draw(random, 2)) {
            model_header m;
            memcpy(&m, data, sizeof m);
            make_odd(data, (size_t)m.weights_at + MODEL_ALIGN, 32, end, random);
            return size;
        }
        make_odd(data, sizeof(model_header) + MODEL_ALIGN + 4 * (208 + 896), 64, end, random); /* behind layers, window, turns */
        return size;
    case 8:
        return draw(random, 4) ? size : cut(data, size, random);
    default:
        return reshape(data, size, room, random);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
    uint32_t random = seed * 2654435761u + 1;
    if (!random) random = 1;
    for (uint32_t left = 1 + draw(&random, 3); left > 0; left--) size = mutate_once(data, size, room, &random);
    if (draw(&random, 32)) mend_all(data, size);
    return size;
}
