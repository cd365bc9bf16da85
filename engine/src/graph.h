/* The search over graphs, of commands with slots, repetition or order: `graph_search.py` in C, decision for decision. */
#ifndef KOULING_GRAPH_H
#define KOULING_GRAPH_H

#include <stdint.h>

#include "floats.h"

#define GRAPH_PATH 24 /* units of slots that a path remembers */

enum { GRAPH_STARTS = 1, GRAPH_ENDS = 2, GRAPH_OPENS = 4, GRAPH_GOES_ON = 8 }; /* flags of a node */

/* Behind the text of a command set of version 2. `docs/model-file.md` describes it. */
typedef struct {
    uint32_t nodes, arcs, slots, text_bytes;
    double fillers, past_weak, per_word;
    uint32_t reserved[6];
} graph_header;

typedef struct {
    const graph_header *header; /* NULL: the set has none */
    const int32_t *unit, *command, *slot, *adds; /* [nodes] */
    const uint8_t *flags;       /* [nodes] */
    const uint32_t *before_at;  /* [nodes + 1] into the nodes before each */
    const int32_t *before;      /* the node, or its complement where the arc leads past a weak word */
    const uint32_t *piece_at;   /* [nodes + 1] into the text */
    const uint32_t *name_at;    /* [slots + 1] into the text */
    const uint8_t *is_number;   /* [slots] */
    const char *text;
} graph;

/* How the sentence at a node was read: the units of slots before it, and how sure each was. */
typedef struct {
    int32_t node[GRAPH_PATH];
    float sure[GRAPH_PATH];
    int32_t count, depth, first_unit, born;
    double weakest; /* how sure the least sure link is, up to this node */
} graph_path;

typedef struct {
    double said, rest, said_age, rest_age, rest_gap;
} node_state;

typedef struct {
    double enter, enter_age, source; /* of this frame */
    double flow, base;               /* since the path came: what flowed in, what there was to flow, */
    double kept, link;               /* how much was kept through silence since; how sure the least sure link is then */
    int32_t via, via_born;           /* by which node the path came, and since when that had its own */
    int32_t next_via, taken;         /* of this frame */
} graph_flow;

typedef struct {
    graph graph;
    node_state *mass; /* [nodes] */
    graph_flow *flow; /* [nodes] */
    graph_path *path; /* [nodes] */
} graph_search;

typedef struct {
    const double *now, *before; /* probabilities of this frame and the one before */
    double alone, max_gap, max_frames;
    uint32_t unknown, frame;
} graph_frame;

void graph_reset(graph_search *s);
/* One frame of the recursion; what flows into each node is in `flow` afterwards. */
void graph_advance(graph_search *s, const graph_frame *f);
/* The path of a node with the node itself. */
graph_path graph_reading(const graph_search *s, int32_t node);
/* The largest probability of a node from which the sentence at this one may go on. */
double graph_going_on(const graph_search *s, int32_t node, double spike, uint32_t frame);

#endif
