/* Streams used wrongly; see misuse.c. */
#include "misuse.h"

/* What a pointer to no stream, or to memory that holds none, is told. */
static void use_without_stream(kouling_stream *stream, kouling_status expected) {
    int16_t samples[4] = {0};
    float numbers[4];
    size_t used, count;
    kouling_event *events = calloc(KOULING_MAX_EVENTS, sizeof *events);
#define TOLD(call) expect(call, expected, #call, __LINE__)
    TOLD(kouling_reset(stream));
    TOLD(kouling_accept(stream, samples, 4, &used, events, &count));
    TOLD(kouling_finish(stream, events, &count));
    TOLD(kouling_features(stream, samples, 4, &used, numbers, 0, &count));
    TOLD(kouling_log_probs(stream, numbers, 0, numbers));
    TOLD(kouling_decode(stream, numbers, 0, &used, events, &count));
    free(events);
}

void streams_that_are_none(const kouling_model *model, const kouling_commands *set, const kouling_model *other) {
    const kouling_model unopened = {NULL};
    const kouling_commands no_set = {NULL};
    kouling_commands others;
    size_t size;
    static const uint32_t absurd[] = {0, KOULING_MAX_FRAMES + 1, UINT32_MAX};
    EXPECT(kouling_commands_open(&others, other, (const uint8_t *)other->data + ((const model_header *)other->data)->commands_at,
                                 ((const model_header *)other->data)->commands_bytes), OK);
    EXPECT(kouling_stream_size(NULL, set, 1, &size), NULL);
    EXPECT(kouling_stream_size(&unopened, set, 1, &size), NULL);
    EXPECT(kouling_stream_size(model, &no_set, 1, &size), NULL);
    EXPECT(kouling_stream_size(model, set, 1, NULL), NULL);
    EXPECT(kouling_stream_size(model, &others, 1, &size), UNFIT);
    for (int i = 0; i < 3; i++) EXPECT(kouling_stream_size(model, set, absurd[i], &size), NOT_ALLOWED);
    EXPECT(kouling_stream_size(model, set, KOULING_MAX_FRAMES, &size), OK);

    /* In memory that held zeros, anything, or a stream that works, there is none after a failure. */
    uint8_t *memory = aligned(size + KOULING_ALIGN);
    const struct {
        const kouling_model *model;
        const kouling_commands *set;
        uint32_t frames;
        void *memory;
        size_t size;
        kouling_status status;
    } wrong[] = {{model, set, 1, NULL, size, KOULING_NULL},
                 {model, set, 1, memory + 1, size, KOULING_MISALIGNED},
                 {model, set, 1, memory + 32, size, KOULING_MISALIGNED},
                 {model, set, 1, memory, 0, KOULING_TOO_SMALL},
                 {model, set, 1, memory, 16, KOULING_TOO_SMALL},
                 {model, set, 1, memory, SIZE_MAX, KOULING_NOT_ALLOWED},
                 {NULL, set, 1, memory, size, KOULING_NULL},
                 {&unopened, set, 1, memory, size, KOULING_NULL},
                 {model, &no_set, 1, memory, size, KOULING_NULL},
                 {model, &others, 1, memory, size, KOULING_UNFIT},
                 {model, set, 0, memory, size, KOULING_NOT_ALLOWED},
                 {model, set, KOULING_MAX_FRAMES + 1, memory, size, KOULING_NOT_ALLOWED},
                 {model, set, UINT32_MAX, memory, size, KOULING_NOT_ALLOWED},
                 {model, set, KOULING_MAX_FRAMES, memory, size - 1, KOULING_TOO_SMALL}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (int before = 0; before < 3; before++) {
            kouling_stream *stream;
            memset(memory, before == 1 ? 0xa5 : 0, size);
            if (before == 2) EXPECT(kouling_stream_init(&stream, model, set, KOULING_MAX_FRAMES, memory, size), OK);
            stream = (kouling_stream *)(void *)memory;
            expect(kouling_stream_init(&stream, wrong[i].model, wrong[i].set, wrong[i].frames, wrong[i].memory, wrong[i].size),
                   wrong[i].status, "kouling_stream_init", (int)i);
            CHECK(!stream);
            if (wrong[i].memory == memory && (wrong[i].size - 1 < MOST_BYTES || before < 2))
                use_without_stream((kouling_stream *)(void *)memory, KOULING_NOT_READY);
        }
    EXPECT(kouling_stream_init(NULL, model, set, 1, memory, size), NULL);
    free(memory);
    for (size_t small = 0; small < size; small += small < 64 ? 1 : 4093) {
        kouling_stream *stream;
        uint8_t *exact = aligned(small);
        EXPECT(kouling_stream_init(&stream, model, set, KOULING_MAX_FRAMES, exact, small), TOO_SMALL);
        free(exact);
    }
}

/* A stream of the model, with its own command set or that one. */
static kouling_stream *stream_of(const kouling_model *model, const kouling_commands *set, uint32_t frames) {
    size_t size;
    kouling_stream *stream;
    EXPECT(kouling_stream_size(model, set, frames, &size), OK);
    EXPECT(kouling_stream_init(&stream, model, set, frames, aligned(size), size), OK);
    return stream; /* at the beginning of its memory */
}

void streams(const kouling_model *model) {
    kouling_stream *stream = stream_of(model, NULL, KOULING_LIVE);
    uint32_t mels, step, units;
    int16_t samples[1600] = {0};
    size_t used, count;
    EXPECT(kouling_shape(model, &mels, &step, &units), OK);
    kouling_event *events = calloc(KOULING_MAX_EVENTS, sizeof *events);
    float *features = calloc((size_t)2 * step * mels, sizeof *features), *log_probs = calloc((size_t)2 * step * units, sizeof *log_probs);
    use_without_stream(NULL, KOULING_NULL);

    EXPECT(kouling_accept(stream, NULL, 1, &used, events, &count), NULL);
    EXPECT(kouling_accept(stream, samples, 1, NULL, events, &count), NULL);
    EXPECT(kouling_accept(stream, samples, 1, &used, NULL, &count), NULL);
    EXPECT(kouling_accept(stream, samples, 1, &used, events, NULL), NULL);
    EXPECT(kouling_finish(stream, NULL, &count), NULL);
    EXPECT(kouling_finish(stream, events, NULL), NULL);
    used = count = 77;
    EXPECT(kouling_accept(stream, samples, 0, &used, events, &count), OK);
    CHECK(used == 0 && count == 0);
    used = count = 77;
    EXPECT(kouling_accept(stream, NULL, 0, &used, events, &count), OK); /* no samples need not lie anywhere */
    CHECK(used == 0 && count == 0);
    EXPECT(kouling_finish(stream, events, &count), OK);
    EXPECT(kouling_finish(stream, events, &count), OK); /* finished already */
    CHECK(count == 0);
    EXPECT(kouling_accept(stream, samples, 1600, &used, events, &count), OK); /* not reset in between: odd, but defined */
    CHECK(used == 1600);
    EXPECT(kouling_reset(stream), OK);

    EXPECT(kouling_features(stream, NULL, 1, &used, features, 1, &count), NULL);
    EXPECT(kouling_features(stream, samples, 1, NULL, features, 1, &count), NULL);
    EXPECT(kouling_features(stream, samples, 1, &used, NULL, 1, &count), NULL);
    EXPECT(kouling_features(stream, samples, 1, &used, features, 1, NULL), NULL);
    EXPECT(kouling_features(stream, NULL, 0, &used, features, 1, &count), OK);
    CHECK(used == 0 && count == 0);
    EXPECT(kouling_features(stream, samples, 1600, &used, NULL, 0, &count), OK); /* no room: nothing is taken */
    CHECK(used == 0 && count == 0);
    EXPECT(kouling_features(stream, samples, 1600, &used, features, 1, &count), OK);
    CHECK(used == WINDOW_SAMPLES && count == 1);

    size_t given, events_heard;
    kouling_event decoded[KOULING_MAX_EVENTS];
    EXPECT(kouling_decode(stream, NULL, 1, &given, decoded, &events_heard), NULL);
    EXPECT(kouling_decode(stream, log_probs, 1, NULL, decoded, &events_heard), NULL);
    EXPECT(kouling_decode(stream, log_probs, 1, &given, NULL, &events_heard), NULL);
    EXPECT(kouling_decode(stream, log_probs, 1, &given, decoded, NULL), NULL);
    EXPECT(kouling_decode(stream, log_probs, SIZE_MAX, &given, decoded, &events_heard), NOT_ALLOWED);
    EXPECT(kouling_decode(stream, NULL, 0, &given, decoded, &events_heard), OK);
    EXPECT(kouling_log_probs(stream, NULL, step, log_probs), NULL);
    EXPECT(kouling_log_probs(stream, features, step, NULL), NULL);
    EXPECT(kouling_log_probs(stream, NULL, 0, NULL), OK);
    for (uint32_t frames = 1; frames < 2 * step; frames++)
        if (frames % step) EXPECT(kouling_log_probs(stream, features, frames, log_probs), NOT_ALLOWED);
    EXPECT(kouling_log_probs(stream, features, SIZE_MAX - SIZE_MAX % step - 1, log_probs), NOT_ALLOWED);
    EXPECT(kouling_log_probs(stream, features, SIZE_MAX / step * step, log_probs), NOT_ALLOWED);
    EXPECT(kouling_log_probs(stream, features, MOST_BYTES / sizeof(float) / mels / step * step + step, log_probs), NOT_ALLOWED);
    EXPECT(kouling_accept(stream, samples, SIZE_MAX, &used, events, &count), NOT_ALLOWED);
    EXPECT(kouling_accept(stream, samples, MOST_BYTES / sizeof *samples + 1, &used, events, &count), NOT_ALLOWED);
    EXPECT(kouling_features(stream, samples, SIZE_MAX, &used, features, 1, &count), NOT_ALLOWED);
    EXPECT(kouling_log_probs(stream, features, 2 * step, log_probs), OK);
    free(events), free(features), free(log_probs), free(stream);
}

/* Samples in calls of at most `portion`, then the end -> how many events there were, and in `most` those of one call. */
static size_t hear(kouling_stream *stream, const int16_t *samples, size_t count, size_t portion, size_t *most, uint32_t *hash) {
    kouling_event *events = calloc(KOULING_MAX_EVENTS, sizeof *events);
    size_t total = 0, used, heard;
    *most = *hash = 0;
    EXPECT(kouling_reset(stream), OK);
    for (size_t done = 0, ending = 0; ending < 2;) {
        const size_t given = count - done < portion ? count - done : portion;
        if (done < count) {
            EXPECT(kouling_accept(stream, samples + done, given, &used, events, &heard), OK);
            CHECK(used <= given && (used || heard) && (used == given || heard > 1));
            done += used;
        } else {
            EXPECT(kouling_finish(stream, events, &heard), OK);
            ending = heard ? 0 : ending + 1;
        }
        CHECK(heard <= KOULING_MAX_EVENTS);
        for (size_t i = 0; i < heard; i++) {
            const double numbers[] = {events[i].command, events[i].start_s, events[i].end_s, (double)events[i].confidence};
            *hash = *hash * 31 + checksum((const uint8_t *)numbers, sizeof numbers);
        }
        *most = heard > *most ? heard : *most;
        total += heard;
    }
    free(events);
    return total;
}

void more_events_than_fit(const kouling_model *model, const kouling_commands *set) {
    enum { COUNT = 60 * 16000 };
    kouling_stream *stream = stream_of(model, set, KOULING_FILE);
    int16_t *samples = malloc(COUNT * sizeof *samples);
    uint32_t random = 1, hash, same;
    size_t most, least;
    for (size_t i = 0; i < COUNT; i++) { /* noise that comes and goes */
        random = random * 1664525u + 1013904223u;
        samples[i] = (int16_t)((int32_t)(random >> 16) - 32768) / (1 << (i / 1600 * 7 % 12));
    }
    const size_t total = hear(stream, samples, COUNT, COUNT, &most, &hash);
    CHECK(most + DECODER_EVENTS > KOULING_MAX_EVENTS && total > most); /* else no call was ended early */
    CHECK(hear(stream, samples, COUNT, 1600, &least, &same) == total && same == hash);
    free(samples), free(stream);
}
