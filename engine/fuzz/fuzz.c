/* Any bytes as a model, or as a command set beside a good model: opened, and if that works, listened with, in the order
 * that the input's last bytes say. What must hold whatever the bytes are is asserted; the sanitizers do the rest. */
#include "fuzz.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "kernels.h"
#include "kouling.h"

#define MOST_MEMORY ((size_t)4 << 20) /* of a stream; larger ones take long and show nothing new */
#define MOST_WORK ((size_t)1 << 27)   /* of an input, about the multiplications; some hundredths of a second */
#define AGAIN_OF 4                    /* inputs, one is run again, with something else in its memory before */

#define REQUIRE(what) ((what) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what), abort()))

fuzz_counts counts;
static kouling_model good;

static uint8_t *aligned(size_t bytes) { /* exactly so many, that a sanitizer sees the first one too many */
    void *memory;
    REQUIRE(posix_memalign(&memory, KOULING_ALIGN, bytes) == 0);
    return memory;
}

static void *exactly(size_t bytes) {
    void *memory = malloc(bytes);
    REQUIRE(memory || !bytes);
    return memory;
}

/* A good model for command sets; GOOD_MODEL is a file of the corpus. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    static _Alignas(KOULING_ALIGN) uint8_t model[1 << 16];
    FILE *file = fopen(GOOD_MODEL, "rb");
    const size_t bytes = file ? fread(model, 1, sizeof model, file) : 0;
    if (file) fclose(file);
    const kouling_status status = kouling_model_open(&good, model, bytes);
    if (status == KOULING_OK) return 0;
    fprintf(stderr, "%s: %s; engine/fuzz/seeds.py makes it\n", GOOD_MODEL, kouling_message(status));
    exit(2);
}

size_t file_end(const uint8_t *data, size_t size) {
    uint32_t said = 0;
    if (size >= 16) memcpy(&said, data + 12, sizeof said);
    return said < size ? said : size;
}

typedef struct {
    const uint8_t *next, *end; /* of what to do */
    kouling_stream *stream;
    uint32_t mels, step, units, width, subsampling, priming;
    size_t work_left, work; /* work: of one encoder frame */
    uint32_t random, hash;  /* hash: of all that came out */
} listener;

static uint8_t next(listener *l) { return l->next < l->end ? *l->next++ : 0; }

static uint32_t draw(listener *l) { /* Marsaglia's xorshift */
    l->random ^= l->random << 13, l->random ^= l->random >> 17;
    return l->random ^= l->random << 5;
}

static void note(listener *l, const void *bytes, size_t count) {
    l->hash = (l->hash ^ checksum(bytes, count)) * 16777619u;
}

/* Whether there is time for so many encoder frames. */
static int may_run(listener *l, size_t frames) {
    if (l->work > l->work_left / (frames + 1)) return 0;
    l->work_left -= l->work * (frames + 1);
    return 1;
}

static void note_events(listener *l, const kouling_event *events, size_t heard) {
    REQUIRE(heard <= KOULING_MAX_EVENTS);
    for (size_t i = 0; i < heard; i++) {
        const kouling_event *e = &events[i];
        REQUIRE(e->confidence >= 0 && e->confidence <= 1 && e->start_s >= 0 && e->end_s >= e->start_s);
        note(l, e->name, e->name_bytes);
        note(l, &e->command, sizeof e->command), note(l, &e->confidence, sizeof e->confidence);
        note(l, &e->start_s, sizeof e->start_s), note(l, &e->end_s, sizeof e->end_s);
        REQUIRE(e->slot_count <= KOULING_MAX_SLOTS && (e->slots || !e->slot_count));
        for (uint32_t k = 0; k < e->slot_count; k++) {
            const kouling_slot *slot = &e->slots[k];
            REQUIRE(slot->confidence >= 0 && slot->confidence <= 1);
            note(l, slot->name, slot->name_bytes), note(l, &slot->number, sizeof slot->number);
            if (slot->text) note(l, slot->text, slot->text_bytes);
        }
    }
    counts.events += (unsigned)heard;
}

static int16_t *make_samples(listener *l, size_t count) {
    int16_t *samples = exactly(count * sizeof *samples);
    const uint32_t quiet = next(l) % 17; /* bits of loudness missing; 16: silence */
    for (size_t i = 0; i < count; i++) samples[i] = (int16_t)((int32_t)(int16_t)draw(l) / (1 << quiet));
    return samples;
}

static size_t portion(listener *l) {
    static const uint16_t sizes[] = {0, 1, 159, 160, 161, 399, 400, 640, 1600, 1601, 4000, 16000};
    return sizes[next(l) % (sizeof sizes / sizeof *sizes)];
}

static void accept(listener *l, kouling_event *events) {
    const size_t count = portion(l);
    size_t used, heard;
    if (!may_run(l, count / HOP_SAMPLES / l->subsampling + 1)) return;
    int16_t *samples = make_samples(l, count);
    for (size_t done = 0; done < count; done += used) {
        REQUIRE(kouling_accept(l->stream, samples + done, count - done, &used, events, &heard) == KOULING_OK);
        REQUIRE(used <= count - done && (used || heard)); /* else one would call for ever */
        note_events(l, events, heard);
    }
    free(samples);
}

static void finish(listener *l, kouling_event *events, int once) {
    size_t heard;
    if (!may_run(l, (2 * MODEL_MAX_WINDOW + 80) / l->subsampling + 2 * l->step)) return;
    do {
        REQUIRE(kouling_finish(l->stream, events, &heard) == KOULING_OK);
        note_events(l, events, heard);
    } while (heard && !once);
}

static void make_features(listener *l) {
    const size_t count = portion(l), room = next(l) % 20;
    size_t used, frames;
    if (!may_run(l, room)) return;
    int16_t *samples = make_samples(l, count);
    float *features = exactly(room * l->mels * sizeof *features);
    REQUIRE(kouling_features(l->stream, samples, count, &used, features, room, &frames) == KOULING_OK);
    REQUIRE(used <= count && frames <= room && (used == count || frames == room));
    note(l, features, frames * l->mels * sizeof *features);
    free(features), free(samples);
}

/* Log-probabilities as they may come from elsewhere, strange ones too. */
static void decode(listener *l, const float *log_probs, size_t frames, kouling_event *events) {
    size_t used, heard, done = 0;
    const kouling_status status = kouling_decode(l->stream, log_probs, frames, &used, events, &heard);
    REQUIRE(status == KOULING_OK || status == KOULING_NOT_ALLOWED); /* the latter of a set with enrolled commands */
    if (status != KOULING_OK) return;
    for (;; REQUIRE(kouling_decode(l->stream, log_probs + done * l->units, frames - done, &used, events, &heard) == KOULING_OK)) {
        REQUIRE(used <= frames - done && (used || heard || done == frames));
        note_events(l, events, heard);
        if ((done += used) == frames) return;
    }
}

static void make_log_probs(listener *l, kouling_event *events) {
    static const float strange[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f, -0.0f, 1e30f};
    const uint8_t kind = next(l);
    const size_t frames = (size_t)l->step * (kind % 5), numbers = frames * l->mels, out = frames / l->subsampling;
    const size_t made = out * (kind & 0x40 ? l->width : l->units);
    if (!may_run(l, frames / l->subsampling)) return;
    float *features = exactly(numbers * sizeof *features), *results = exactly(made * sizeof *results);
    kouling_status (*run)(kouling_stream *, const float *, size_t, float *) = kind & 0x40 ? kouling_hidden : kouling_log_probs;
    for (size_t i = 0; i < numbers; i++)
        features[i] = kind & 0x80 && draw(l) % 16 == 0 ? strange[draw(l) % 8] : (float)(draw(l) % 4096) / 1024.0f;
    if (l->step > 1) REQUIRE(run(l->stream, features, frames + 1, results) == KOULING_NOT_ALLOWED);
    REQUIRE(run(l->stream, features, frames, results) == KOULING_OK);
    note(l, results, made * sizeof *results);
    if ((kind & 0x60) == 0x20) decode(l, results, out, events);
    free(features), free(results);
}

static void reset(listener *l) {
    if (may_run(l, l->priming)) REQUIRE(kouling_reset(l->stream) == KOULING_OK);
}

static void act(listener *l) {
    static const char *const levels[] = {"portable", "avx2", "avx512-vnni", "avx512-amx"}; /* those that there are */
    kouling_event *events = exactly(KOULING_MAX_EVENTS * sizeof *events);
    while (l->next < l->end) {
        const uint8_t what = next(l);
        switch (what % 8) {
        case 0: case 1: case 2: accept(l, events); break;
        case 3: finish(l, events, what & 8); break;
        case 4: make_features(l); break;
        case 5: make_log_probs(l, events); break;
        case 6: reset(l); break;
        case 7: kouling_use_level(l->stream, levels[what / 8 % 4]); break;
        }
    }
    free(events);
}

/* -> hash of all that came out. `filler` lies in the memory before, and must not be seen. */
static uint32_t listen(const kouling_model *model, const kouling_commands *commands, size_t file_bytes, const uint8_t *script,
                       size_t steps, int filler) {
    const model_header *m = model->data;
    listener l = {.next = script, .end = script + steps, .work_left = MOST_WORK, .random = 1};
    l.subsampling = m->subsampling, l.priming = m->priming_frames;
    size_t size;
    REQUIRE(kouling_shape(model, &l.mels, &l.step, &l.units) == KOULING_OK && kouling_width(model, &l.width) == KOULING_OK);
    uint32_t frames = next(&l);
    const int allowed = frames >= 1 && frames <= KOULING_MAX_FRAMES;
    REQUIRE(kouling_stream_size(model, commands, frames, &size) == (allowed ? KOULING_OK : KOULING_NOT_ALLOWED));
    if (!allowed) frames = frames % KOULING_MAX_FRAMES + 1;
    REQUIRE(kouling_stream_size(model, commands, frames, &size) == KOULING_OK);
    l.work = m->mels / 2 * (size_t)m->file_bytes + 64 * file_bytes + size; /* the stem's weights are used for every mel */
    if (size > MOST_MEMORY || !may_run(&l, m->priming_frames)) return 0;
    uint8_t *memory = aligned(size);
    memset(memory, filler, size);
    REQUIRE(kouling_stream_init(&l.stream, model, commands, frames, memory, size - 1) == KOULING_TOO_SMALL);
    REQUIRE(kouling_stream_init(&l.stream, model, commands, frames, memory, size) == KOULING_OK);
    counts.streams++;
    act(&l);
    free(memory);
    return l.hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* Where an input says nothing: 10 frames at once, a second of noise, its end, the other levels, some features. */
    static const uint8_t usual[] = {10, 0, 11, 2, 3, 6, 7, 0, 8, 4, 3, 5, 8, 12, 9, 4, 9, 5, 15, 0, 9, 1, 13, 0x83};
    const size_t bytes = file_end(data, size), steps = size - bytes < 64 ? size - bytes : 64;
    const uint8_t *script = steps ? data + bytes : usual;
    uint8_t *file = aligned(bytes);
    memcpy(file, data, bytes);
    kouling_model model = good;
    kouling_commands set, *commands = NULL;
    kouling_status status;
    if (bytes >= 8 && !memcmp(file, "KLWORDS", 8)) {
        status = kouling_commands_open(commands = &set, &good, file, bytes);
    } else {
        const char *text;
        size_t length;
        status = kouling_model_open(&model, file, bytes);
        if (status == KOULING_OK) REQUIRE(kouling_model_text(&model, &text, &length) == KOULING_OK);
        if (status == KOULING_OK) checksum((const uint8_t *)text, length); /* reads it all */
    }
    counts.inputs++;
    counts.opened += status == KOULING_OK;
    if (status == KOULING_OK) {
        const uint32_t hash = listen(&model, commands, bytes, script, steps ? steps : sizeof usual, 0xa5);
        if (checksum(data, size) % AGAIN_OF == 0)
            REQUIRE(hash == listen(&model, commands, bytes, script, steps ? steps : sizeof usual, 0x00));
    }
    free(file);
    return 0;
}
