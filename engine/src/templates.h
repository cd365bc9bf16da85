/* Commands that are known from a few recordings: what the encoder says now, matched against what it said in these. */
#ifndef KOULING_TEMPLATES_H
#define KOULING_TEMPLATES_H

#include <stdint.h>

#include "floats.h"

#define TEMPLATES_LATELY 7 /* frames in which the ends of a command's templates count as one */
#define TEMPLATES_BEST 3   /* templates whose likeness a command's is the mean of */

/* Behind a command set of version 3. `docs/model-file.md` describes it. */
typedef struct {
    uint32_t commands, templates, rows, width;
    uint32_t tail; /* frames at the end of a template that lie behind its sound */
    uint32_t reserved[11];
} templates_header;

typedef struct {
    const templates_header *header; /* NULL: the set has none */
    const int32_t *command;      /* [commands] index in the set, ascending */
    const uint32_t *template_at; /* [commands + 1] into the templates of each */
    const uint32_t *row_at;      /* [templates + 1] into the rows of each */
    const float *rows, *bias;    /* [rows][width], [rows] */
} templates;

/* The best path that ends at a row, and the frame in which it began. */
typedef struct {
    float likeness;
    uint32_t start;
} template_path;

/* What a command waits to be decided with: the best likeness since it passed the threshold. */
typedef struct {
    float likeness; /* 0: nothing waits */
    uint32_t peak, start, end; /* frames: when it was best; the sound of the best template */
} template_peak;

typedef struct {
    templates set;
    template_path *rows;   /* [rows] */
    template_path *lately; /* [templates][TEMPLATES_LATELY] at their last rows, the frame n at n % TEMPLATES_LATELY */
    template_peak *peaks;  /* [commands] */
} template_search;

void templates_reset(template_search *s);
/* One frame of what the last block says, [width]. threshold: of each command of the set. */
void templates_advance(template_search *s, const float *hidden, uint32_t frame, const double *threshold);
/* The next command to be decided, one of `commands`, or -1. It is taken off, with those that it stands in the way of.
 * settle: frames in which it must not have grown; 0 at the end of a stream. */
int32_t templates_decide(template_search *s, uint32_t frame, uint32_t settle, template_peak *decided);

#endif
