/* Streaming search for commands in CTC log-probabilities: `decoder.py` in C, decision for decision. */
#ifndef KOULING_DECODER_H
#define KOULING_DECODER_H

#include "encoder.h"
#include "kouling.h"

#define COMMANDS_VERSION 1
/* Phrases that wait for their decision at once; of more the least likely are dropped. In a frame each end of a phrase may
 * join them, and what has waited through one no longer overlaps: of that there are few. */
#define DECODER_WAITING 64
#define DECODER_WAITED 16

/* A command set, compiled for one model by Python: a header, arrays behind it. `docs/model-file.md` describes it. */
typedef struct {
    char magic[8]; /* "KLWORDS", a zero */
    uint32_t version, file_bytes, checksum;
    uint32_t nodes, commands, units, beyond, text_bytes;
    uint32_t settle, isolation, hesitation, unknown; /* frames; the unit of unknown words, 0 where there is none */
    uint32_t reserved[2];
    double frame_s, first_frame_s, max_gap, max_frames, refractory, sure, slope, bias;
} commands_header;

typedef struct {
    const commands_header *header;
    const int32_t *unit, *parent, *command, *depth, *first_unit; /* [nodes] */
    const int32_t *beyond_at, *beyond; /* [nodes + 1] into the nodes that go on from each */
    const double *threshold;           /* [commands] */
    const double *onset_s, *offset_s;  /* [units] */
    const uint32_t *name_at;           /* [commands + 1] into the text */
    const char *text;
} command_set;

typedef struct {
    int32_t node;
    uint32_t opened, grown;
    double probability, alone, spike, length;
} candidate;

typedef struct {
    double said, rest, said_age, rest_age, rest_gap;
} node_state;

typedef struct {
    command_set set;
    uint32_t frame, known_count, known_at, open_count, waiting_count, most_waiting;
    node_state *nodes;
    double *before;     /* [units] */
    double *now;        /* [units] */
    double *known;      /* [isolation] ring */
    double *last_heard; /* [commands] frame, or far in the past */
    candidate *open;    /* one a phrase's end at most */
    candidate *waiting; /* [most_waiting + 1] */
} decoder;

/* Where the parts of a command set lie, after a look at whether they make sense. */
kouling_status commands_read(command_set *set, const void *data);
void decoder_place(decoder *d, const command_set *set, arena *memory);
void decoder_reset(decoder *d);
/* One frame of log-probabilities -> how many events it decides, written from `events` on. */
uint32_t decoder_advance(decoder *d, const float *log_probs, kouling_event *events);
uint32_t decoder_flush(decoder *d, kouling_event *events);

#endif
