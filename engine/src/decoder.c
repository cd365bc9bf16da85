#include "decoder.h"

#include <math.h>
#include <string.h>

void decoder_place(decoder *d, const command_set *set, arena *memory) {
    const commands_header *h = set->header;
    uint32_t ends = 0;
    for (uint32_t n = 1; n < h->nodes; n++) ends += set->command[n] >= 0;
    d->set = *set;
    d->nodes = arena_take(memory, h->nodes, sizeof(node_state));
    d->before = arena_take(memory, h->units, sizeof(double));
    d->now = arena_take(memory, h->units, sizeof(double));
    d->known = arena_take(memory, h->isolation, sizeof(double));
    d->last_heard = arena_take(memory, h->commands, sizeof(double));
    d->open = arena_take(memory, ends, sizeof(candidate));
    d->most_waiting = ends < DECODER_WAITING - DECODER_WAITED ? ends + DECODER_WAITED : DECODER_WAITING;
    d->waiting = arena_take(memory, (size_t)d->most_waiting + 1, sizeof(candidate));
}

void decoder_reset(decoder *d) {
    const commands_header *h = d->set.header;
    d->frame = d->known_count = d->known_at = d->open_count = d->waiting_count = 0;
    memset(d->nodes, 0, h->nodes * sizeof(node_state));
    for (uint32_t u = 0; u < h->units; u++) d->before[u] = 0.0;
    for (uint32_t c = 0; c < h->commands; c++) d->last_heard[c] = -INFINITY;
}

static double confidence_of(const decoder *d, const candidate *c) {
    const double p = (c->probability < 1.0 ? c->probability : 1.0) * c->alone;
    const double bounded = p < 1e-6 ? 1e-6 : p > 1 - 1e-6 ? 1 - 1e-6 : p;
    const double logit = d->set.header->slope * log(bounded / (1 - bounded)) + d->set.header->bias;
    return 1 / (1 + exp(-logit));
}

/* Whether someone may still talk on, which a sure command behind this one is not. */
static int hesitating(const decoder *d, const candidate *c, double confidence) {
    if (confidence >= d->set.header->sure || d->frame - c->spike >= d->set.header->hesitation) return 0;
    for (uint32_t i = 0; i < d->waiting_count; i++) {
        const candidate *other = &d->waiting[i];
        if (other->spike > c->spike && confidence_of(d, other) >= d->set.header->sure) return 0;
    }
    return 1;
}

static candidate *open_at(decoder *d, int32_t node) {
    for (uint32_t i = 0; i < d->open_count; i++)
        if (d->open[i].node == node) return &d->open[i];
    return NULL;
}

static void flow_into(decoder *d, int32_t node, double flow, double length) {
    candidate *c = open_at(d, node);
    if (!c && flow > 0.02) {
        c = &d->open[d->open_count++];
        *c = (candidate){.node = node, .opened = d->frame, .alone = 1.0};
    }
    if (!c) return;
    if (flow > 0.02) c->grown = d->frame;
    const double total = c->probability + flow;
    c->spike += (d->frame - c->spike) * flow / total;
    c->length += (length - c->length) * flow / total;
    c->probability = total;
}

/* One frame of the recursion over the tree, and its flow into the ends of phrases. */
static void advance(decoder *d, const float *log_probs) {
    const command_set *set = &d->set;
    const commands_header *h = set->header;
    for (uint32_t u = 0; u < h->units; u++) d->now[u] = exp((double)log_probs[u]);
    double alone = 1.0;
    for (uint32_t i = 0; i < d->known_count; i++) /* oldest first */
        alone *= d->known[(d->known_at + h->isolation - d->known_count + i) % h->isolation];
    if (h->unknown && (h->isolation || h->hesitation)) {
        const double absent = 1.0 - d->now[h->unknown];
        if (h->isolation) {
            d->known[d->known_at] = absent;
            d->known_at = (d->known_at + 1) % h->isolation;
            if (d->known_count < h->isolation) d->known_count++;
        }
        for (uint32_t i = 0; i < d->open_count; i++) d->open[i].alone *= absent;
        for (uint32_t i = 0; i < d->waiting_count; i++)
            if (hesitating(d, &d->waiting[i], confidence_of(d, &d->waiting[i]))) d->waiting[i].alone *= absent;
    }
    for (uint32_t n = h->nodes - 1; n >= 1; n--) { /* children before their parents, which they read as they were */
        node_state *own = &d->nodes[n];
        const node_state *parent = &d->nodes[set->parent[n]];
        const int32_t u = set->unit[n];
        const int starts = set->parent[n] == 0, repeats = u == set->unit[set->parent[n]];
        const double unit = d->now[u], said_parent = repeats ? 0.0 : parent->said, rest_parent = parent->rest;
        const double source = starts ? (1.0 - d->before[u]) * alone : said_parent + rest_parent;
        const double enter = unit * source, stay = unit * own->said;
        const double age = said_parent * parent->said_age + rest_parent * parent->rest_age;
        const double enter_age = starts ? 0.0 : age / fmax(source, 1e-30) + 1.0;
        const double said = enter + stay, total = own->said + own->rest, safe = fmax(total, 1e-30);
        const double rest_age = (own->said * own->said_age + own->rest * own->rest_age) / safe + 1.0;
        const double rest_gap = own->rest * own->rest_gap / safe + 1.0;
        own->said_age = (enter * enter_age + stay * (own->said_age + 1.0)) / fmax(said, 1e-30);
        own->rest = rest_gap <= h->max_gap && rest_age <= h->max_frames ? d->now[0] * total : 0.0;
        own->said = said;
        own->rest_age = rest_age;
        own->rest_gap = rest_gap;
        if (enter > 1e-3 && set->command[n] >= 0) flow_into(d, (int32_t)n, enter, enter_age);
    }
    double *swap = d->before;
    d->before = d->now;
    d->now = swap;
}

static void wait_for_decision(decoder *d, const candidate *c) {
    d->waiting[d->waiting_count++] = *c;
    if (d->waiting_count <= d->most_waiting) return;
    uint32_t least = 0;
    for (uint32_t i = 1; i < d->waiting_count; i++)
        if (d->waiting[i].probability * d->waiting[i].alone < d->waiting[least].probability * d->waiting[least].alone) least = i;
    d->waiting[least] = d->waiting[--d->waiting_count];
}

/* Candidates that have stopped growing wait for their decision. */
static void close_settled(decoder *d, int all) {
    const uint32_t settle = d->set.header->settle;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->open_count; i++) {
        const candidate c = d->open[i];
        if (!all && c.grown + settle > d->frame && c.opened + 4 * settle >= d->frame)
            d->open[kept++] = c;
        else if (all || confidence_of(d, &c) >= d->set.threshold[d->set.command[c.node]])
            wait_for_decision(d, &c);
    }
    d->open_count = kept;
}

static int overlaps(const candidate *a, const candidate *b, double slack) {
    return a->spike >= b->spike - b->length - slack && b->spike >= a->spike - a->length - slack;
}

/* Whether a longer phrase may still grow out of this one. */
static int unsettled(decoder *d, const candidate *c) {
    const command_set *set = &d->set;
    const int32_t from = set->beyond_at[c->node], to = set->beyond_at[c->node + 1];
    if (from == to || open_at(d, c->node)) return 0;
    double most = 0.0;
    for (int32_t i = from; i < to; i++) {
        const node_state *n = &d->nodes[set->beyond[i]];
        if (n->said + n->rest > most) most = n->said + n->rest;
    }
    const node_state *own = &d->nodes[c->node];
    return (d->frame - c->spike <= set->header->max_gap ? own->said + own->rest : 0.0) + most > 0.1;
}

static kouling_event event_of(const decoder *d, const candidate *c, double confidence) {
    const command_set *set = &d->set;
    const commands_header *h = set->header;
    const int32_t command = set->command[c->node];
    const double spike_s = h->first_frame_s + (c->spike + 0.5) * h->frame_s;
    double start_s = spike_s - c->length * h->frame_s - set->onset_s[set->first_unit[c->node]];
    double end_s = spike_s - set->offset_s[set->unit[c->node]];
    start_s = start_s > 0.0 ? start_s : 0.0;
    end_s = end_s > start_s ? end_s : start_s;
    return (kouling_event){set->text + set->name_at[command], set->name_at[command + 1] - set->name_at[command],
                           (uint32_t)command, (float)confidence, start_s, end_s};
}

static int better(const decoder *d, const candidate *a, const candidate *b) {
    const int32_t first = d->set.depth[a->node], second = d->set.depth[b->node];
    return first != second ? first > second : a->probability > b->probability;
}

/* Of overlapping candidates the longest phrase wins, then the likeliest; none is decided before its rivals. */
static uint32_t decide(decoder *d, int final, kouling_event *events) {
    const double refractory = d->set.header->refractory, settle = d->set.header->settle;
    candidate waiting[DECODER_WAITING + 1];
    int decided[DECODER_WAITING + 1];
    const uint32_t count = d->waiting_count;
    uint32_t heard = 0;
    for (uint32_t i = 0; i < count; i++) { /* insertion sort, stable */
        uint32_t at = i;
        while (at > 0 && better(d, &d->waiting[i], &waiting[at - 1])) waiting[at] = waiting[at - 1], at--;
        waiting[at] = d->waiting[i];
    }
    d->waiting_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const candidate c = waiting[i];
        const int32_t command = d->set.command[c.node];
        const double confidence = confidence_of(d, &c);
        int stands = confidence >= d->set.threshold[command] && !(fabs(c.spike - d->last_heard[command]) < refractory);
        for (uint32_t k = 0; stands && k < d->waiting_count; k++) stands = !overlaps(&c, &d->waiting[k], settle);
        if (!stands) continue;
        int undecided = 0;
        for (uint32_t k = 0; !undecided && k < d->open_count; k++) undecided = overlaps(&c, &d->open[k], settle);
        undecided = !final && (undecided || unsettled(d, &c) || hesitating(d, &c, confidence));
        decided[d->waiting_count] = !undecided; /* a decided one stands in the way of the worse ones of this round */
        d->waiting[d->waiting_count++] = c;
        if (undecided) continue;
        if (c.spike > d->last_heard[command]) d->last_heard[command] = c.spike;
        const kouling_event event = event_of(d, &c, confidence);
        uint32_t at = heard++; /* in the order of their ends */
        while (at > 0 && events[at - 1].end_s > event.end_s) events[at] = events[at - 1], at--;
        events[at] = event;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->waiting_count; i++)
        if (!decided[i]) d->waiting[kept++] = d->waiting[i];
    d->waiting_count = kept;
    return heard;
}

uint32_t decoder_advance(decoder *d, const float *log_probs, kouling_event *events) {
    advance(d, log_probs);
    close_settled(d, 0);
    const uint32_t heard = decide(d, 0, events);
    d->frame++;
    return heard;
}

uint32_t decoder_flush(decoder *d, kouling_event *events) {
    close_settled(d, 1);
    return decide(d, 1, events);
}
