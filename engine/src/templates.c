#include "templates.h"

#include <stddef.h>

#define NEVER (-1e9f)
#define LINGER 0.1f /* price of a frame more, and of a row left out */

void templates_reset(template_search *s) {
    const templates_header *h = s->set.header;
    for (uint32_t r = 0; r < h->rows; r++) s->rows[r] = (template_path){NEVER, 0};
    for (uint32_t i = 0; i < h->templates * TEMPLATES_LATELY; i++) s->lately[i] = (template_path){NEVER, 0};
    for (uint32_t c = 0; c < h->commands; c++) s->peaks[c] = (template_peak){0};
}

/* Four sums side by side: a compiler may not reorder one. Widths are multiples of 16. */
static float dot(const float *a, const float *b, uint32_t width) {
    float sums[4] = {0};
    for (uint32_t i = 0; i < width; i += 4)
        for (uint32_t k = 0; k < 4; k++) sums[k] += a[i + k] * b[i + k];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* Dynamic time warping of a part (Sakoe & Chiba 1978): a path may begin anywhere, and each row adds its likeness once. */
static void warp(template_search *s, uint32_t template, const float *hidden, uint32_t frame) {
    const templates *set = &s->set;
    const uint32_t first = set->row_at[template], rows = set->row_at[template + 1] - first, width = set->header->width;
    template_path *path = s->rows + first, end = {NEVER, 0};
    for (uint32_t t = rows; t-- > 0;) { /* from the last: the rows before are still those of the frame before */
        const float alike = dot(hidden, set->rows + (size_t)(first + t) * width, width) + set->bias[first + t];
        template_path best = t ? (template_path){path[t - 1].likeness + alike, path[t - 1].start} : (template_path){alike, frame};
        if (t > 1 && path[t - 2].likeness - LINGER + alike > best.likeness)
            best = (template_path){path[t - 2].likeness - LINGER + alike, path[t - 2].start};
        if (t + 1 == rows) end = best; /* not one that lingers there: it has ended before */
        if (path[t].likeness - LINGER > best.likeness) best = (template_path){path[t].likeness - LINGER, path[t].start};
        path[t] = best;
    }
    s->lately[template * TEMPLATES_LATELY + frame % TEMPLATES_LATELY] = (template_path){end.likeness / (float)rows, end.start};
}

/* The mean of the templates that are most alike, and the sound of the best one. */
static template_peak likeness_of(const template_search *s, uint32_t command, uint32_t frame) {
    float best[TEMPLATES_BEST];
    uint32_t count = 0;
    template_peak found = {NEVER, frame, 0, 0};
    float most = NEVER;
    for (uint32_t t = s->set.template_at[command]; t < s->set.template_at[command + 1]; t++) {
        const template_path *lately = s->lately + t * TEMPLATES_LATELY;
        uint32_t at = 0;
        for (uint32_t i = 1; i < TEMPLATES_LATELY; i++)
            if (lately[i].likeness > lately[at].likeness) at = i;
        const float value = lately[at].likeness;
        if (value > most) {
            most = value, found.start = lately[at].start;
            found.end = frame - (frame % TEMPLATES_LATELY + TEMPLATES_LATELY - at) % TEMPLATES_LATELY;
        }
        uint32_t place = count < TEMPLATES_BEST ? count++ : TEMPLATES_BEST;
        for (; place > 0 && value > best[place - 1]; place--)
            if (place < TEMPLATES_BEST) best[place] = best[place - 1];
        if (place < TEMPLATES_BEST) best[place] = value;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < count; i++) sum += best[i];
    found.likeness = sum / (float)count;
    return found;
}

void templates_advance(template_search *s, const float *hidden, uint32_t frame, const double *threshold) {
    const templates_header *h = s->set.header;
    for (uint32_t t = 0; t < h->templates; t++) warp(s, t, hidden, frame);
    for (uint32_t c = 0; c < h->commands; c++) {
        const template_peak now = likeness_of(s, c, frame);
        if (now.likeness > s->peaks[c].likeness && now.likeness >= threshold[s->set.command[c]]) s->peaks[c] = now;
    }
}

static int overlap(const template_peak *a, const template_peak *b) { return a->start <= b->end && b->start <= a->end; }

int32_t templates_decide(template_search *s, uint32_t frame, uint32_t settle, template_peak *decided) {
    const uint32_t commands = s->set.header->commands;
    for (uint32_t c = 0; c < commands; c++) {
        const template_peak peak = s->peaks[c];
        if (!(peak.likeness > 0.0f) || frame - peak.peak < settle) continue;
        int beaten = 0; /* by one that may still grow, and is decided when it has settled */
        for (uint32_t k = 0; !beaten && k < commands; k++)
            beaten = s->peaks[k].likeness > peak.likeness && overlap(&s->peaks[k], &peak);
        s->peaks[c].likeness = 0.0f;
        if (beaten) continue;
        for (uint32_t k = 0; k < commands; k++)
            if (overlap(&s->peaks[k], &peak)) s->peaks[k].likeness = 0.0f;
        *decided = peak;
        return (int32_t)c;
    }
    return -1;
}
