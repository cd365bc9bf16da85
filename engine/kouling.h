/* kouling: hears voice commands in 16 kHz audio, in a few microseconds a step, in memory that you give.
 *
 * C11, no dependency but libm, no allocation, no globals, no threads. A model and a command set are read where they lie
 * (flash, mmap, a C array), never copied, and may be shared by any number of streams; different streams may run on
 * different threads at once. One stream belongs to one thread at a time.
 *
 *     kouling_model model;
 *     kouling_model_open(&model, model_bytes, sizeof model_bytes);
 *     size_t size;
 *     kouling_stream_size(&model, NULL, KOULING_LIVE, &size);
 *     kouling_stream *stream;
 *     kouling_stream_init(&stream, &model, NULL, KOULING_LIVE, memory, size);
 *     for (;;) {
 *         size_t used, heard;
 *         kouling_event events[KOULING_MAX_EVENTS];
 *         kouling_accept(stream, samples, count, &used, events, &heard);
 *     }
 *
 * Every function returns KOULING_OK or says what is wrong; `kouling_message` puts it into words.
 */
#ifndef KOULING_H
#define KOULING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KOULING_ALIGN 64     /* of models, command sets and stream memory */
#define KOULING_LIVE 1       /* encoder frames computed at once: the least memory, the least delay */
#define KOULING_FILE 16      /* faster where more audio is at hand than one step */
#define KOULING_MAX_FRAMES 64
#define KOULING_MAX_EVENTS 160 /* that one call may give */
#define KOULING_MAX_SLOTS 12   /* of an event */

typedef enum {
    KOULING_OK = 0,
    KOULING_NULL,       /* a pointer that may not be null is */
    KOULING_MISALIGNED, /* memory is not aligned to KOULING_ALIGN */
    KOULING_TRUNCATED,  /* fewer bytes than the file says it has */
    KOULING_NO_MODEL,   /* the bytes are no model of kouling */
    KOULING_NO_COMMANDS, /* the bytes are no command set of kouling */
    KOULING_NEWER,      /* made by a newer version than this one reads */
    KOULING_OLDER,      /* made by an older version than this one reads: export the model again */
    KOULING_CORRUPT,    /* the checksum does not fit, or what is inside makes no sense */
    KOULING_UNFIT,      /* the command set was made for another model */
    KOULING_TOO_SMALL,  /* the memory is smaller than kouling_stream_size says */
    KOULING_NOT_READY,  /* the stream was not initialised, or its initialisation failed */
    KOULING_NOT_ALLOWED /* a number is not among those allowed, or a length is one that nothing in memory has, such as -1 */
} kouling_status;

const char *kouling_message(kouling_status status);

/* A value that was said in a slot of a command. */
typedef struct {
    const char *name;      /* of the slot, UTF-8, `name_bytes` long, not ended by a zero; lies in the command set */
    const char *text;      /* the value, likewise; NULL where it is a number */
    uint32_t name_bytes, text_bytes;
    int32_t number;        /* the value, where it is one */
    float confidence;      /* in [0, 1], of this value, given that the command was said */
    char joined[16];       /* room for a text that is made of several words */
} kouling_slot;

typedef struct {
    const char *name;       /* of the command, UTF-8, `name_bytes` long, not ended by a zero; lies in the command set */
    uint32_t name_bytes;
    uint32_t command;       /* its index in the set */
    float confidence;       /* in [0, 1] */
    double start_s, end_s;  /* since the first sample */
    const kouling_slot *slots; /* in the order in which they were said; valid until the next call with the same stream */
    uint32_t slot_count;    /* at most KOULING_MAX_SLOTS; 0 of commands without slots */
} kouling_event;

typedef struct {
    const void *data;
} kouling_model;

/* Check a model once and refer to it where it lies. `data` must stay there, unchanged, as long as the model is used.
 * `bytes` is how many may be read, no fewer than the file has. Where the result is not KOULING_OK, `model` refers to none,
 * and every function refuses it with KOULING_NULL. */
kouling_status kouling_model_open(kouling_model *model, const void *data, size_t bytes);
/* What the model says about itself, as JSON in UTF-8 (not ended by a zero): name, units, licence, provenance. */
kouling_status kouling_model_text(const kouling_model *model, const char **text, size_t *bytes);

/* A compiled command set (`kouling export SET.toml`), beside the model; a model brings one of all its words. */
typedef struct {
    const void *data;
} kouling_commands;

kouling_status kouling_commands_open(kouling_commands *commands, const kouling_model *model, const void *data,
                                     size_t bytes);

typedef struct kouling_stream kouling_stream;

/* How many bytes a stream needs. commands: NULL for the model's own. frames: encoder frames computed at once,
 * KOULING_LIVE to KOULING_MAX_FRAMES. */
kouling_status kouling_stream_size(const kouling_model *model, const kouling_commands *commands, uint32_t frames,
                                   size_t *bytes);
/* A stream in `memory`, aligned to KOULING_ALIGN, of at least that size; it needs no freeing. Where the result is not
 * KOULING_OK, `*stream` is NULL, and a stream that lay in `memory` before may not be used any more. The model's and the
 * command set's bytes must outlive it. */
kouling_status kouling_stream_init(kouling_stream **stream, const kouling_model *model, const kouling_commands *commands,
                                   uint32_t frames, void *memory, size_t bytes);
/* Forget everything heard: the stream is as if just initialised. */
kouling_status kouling_reset(kouling_stream *stream);

/* Samples at 16 kHz, any number -> the commands that they decide, at most KOULING_MAX_EVENTS. Where more are heard than
 * there is room for, `used` is less than `count`: call again with the rest. */
kouling_status kouling_accept(kouling_stream *stream, const int16_t *samples, size_t count, size_t *used,
                              kouling_event *events, size_t *heard);
/* The audio has ended: decide what is still open. Call until `heard` is 0, then reset before the next audio. */
kouling_status kouling_finish(kouling_stream *stream, kouling_event *events, size_t *heard);

/* The lower level. A stream is used either through kouling_accept or through these. */

/* Numbers in a feature frame, frames that a step consumes, units. */
kouling_status kouling_shape(const kouling_model *model, uint32_t *mels, uint32_t *step, uint32_t *units);
/* Samples -> the feature frames that they complete, at most `room` frames of `mels` floats. */
kouling_status kouling_features(kouling_stream *stream, const int16_t *samples, size_t count, size_t *used,
                                float *features, size_t room, size_t *frames);
/* Feature frames, a multiple of the step -> log-probabilities, `units` floats for each encoder frame. */
kouling_status kouling_log_probs(kouling_stream *stream, const float *features, size_t frames, float *log_probs);
/* The same, but what the last block says, `width` floats for each encoder frame: commands are enrolled from it. */
kouling_status kouling_width(const kouling_model *model, uint32_t *width);
kouling_status kouling_hidden(kouling_stream *stream, const float *features, size_t frames, float *hidden);
/* Log-probabilities made elsewhere, by an NPU, of one encoder frame after another -> events. `used`: of the `frames`;
 * fewer when `events`, of KOULING_MAX_EVENTS, is full: call again with the rest. KOULING_NOT_ALLOWED where the command
 * set has enrolled commands, which are not heard by log-probabilities. */
kouling_status kouling_decode(kouling_stream *stream, const float *log_probs, size_t frames, size_t *used,
                              kouling_event *events, size_t *heard);

#ifdef __cplusplus
}
#endif

#endif
