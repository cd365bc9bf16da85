/* Streaming search for commands in CTC log-probabilities: `decoder.py` in C, decision for decision. */
#ifndef KOULING_DECODER_H
#define KOULING_DECODER_H

#include "encoder.h"
#include "graph.h"
#include "kouling.h"
#include "templates.h"

#define COMMANDS_VERSION 3
#define COMMANDS_OLDEST 1 /* of which all are read: 2 brought graphs, 3 templates */
/* Phrases that wait for their decision at once; of more the least likely are dropped. In a frame each end of a phrase may
 * join them, and what has waited through one no longer overlaps: of that there are few. */
#define DECODER_WAITING 64
#define DECODER_WAITED 16
#define DECODER_EVENTS (DECODER_WAITING + 2) /* of a frame: those that waited, one more, and one of templates */
/* Ends of graphs that are open at once; no more are opened. */
#define DECODER_GRAPH_OPEN 128
/* Slots of the events of one call, and for how many there must be room before a frame is decoded. */
#define DECODER_SLOTS (8 * KOULING_MAX_SLOTS)
#define DECODER_SLOTS_LEFT (4 * KOULING_MAX_SLOTS)

/* A command set, compiled for one model by Python: a header, arrays behind it. `docs/model-file.md` describes it. */
typedef struct {
    char magic[8]; /* "KLWORDS", a zero */
    uint32_t version, file_bytes, checksum;
    uint32_t nodes, commands, units, beyond, text_bytes;
    uint32_t settle, isolation, hesitation, unknown; /* frames; the unit of unknown words, 0 where there is none */
    uint32_t graph_at; /* version 2: where the graphs begin, 0 where there are none */
    uint32_t templates_at; /* version 3: where the templates begin, likewise */
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
    graph graph;
    templates templates;
} command_set;

typedef struct {
    int32_t node; /* those of graphs are numbered behind the tree's */
    uint32_t opened, grown;
    int32_t reading; /* of a node of a graph: how it was read */
    double probability, alone, spike, length;
} candidate;

typedef struct {
    command_set set;
    graph_search search;
    template_search recorded;
    uint32_t frame, known_count, known_at, open_count, most_open, tree_ends, waiting_count, most_waiting, slot_count;
    node_state *nodes;
    double *before;     /* [units] */
    double *now;        /* [units] */
    double *known;      /* [isolation] ring */
    double *last_heard; /* [commands] frame, or far in the past */
    candidate *open;    /* [most_open] one a phrase's end at most */
    candidate *waiting; /* [most_waiting + 1] */
    graph_path *readings; /* [most_open + most_waiting + 1] of candidates in graphs, if there are any */
    uint8_t *reading_used;
    kouling_slot *slots;  /* [DECODER_SLOTS] of the events of this call */
} decoder;

/* Where the parts of a command set lie, after a look at whether they make sense. */
kouling_status commands_read(command_set *set, const void *data);
void decoder_place(decoder *d, const command_set *set, arena *memory);
void decoder_reset(decoder *d);
/* Whether the slots of what a frame may decide find room. A call begins with none. */
int decoder_has_room(const decoder *d);
/* One frame of log-probabilities, and of what the last block says, which templates are compared with -> how many events
 * it decides, at most DECODER_EVENTS, written from `events` on. */
uint32_t decoder_advance(decoder *d, const float *log_probs, const float *hidden, kouling_event *events);
uint32_t decoder_flush(decoder *d, kouling_event *events);

#endif
