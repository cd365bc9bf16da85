#include "decoder.h"

#include <math.h>
#include <string.h>

#define MOST_COUNTED 2 /* words behind the first that make a sentence surer */

void decoder_place(decoder *d, const command_set *set, arena *memory) {
    const commands_header *h = set->header;
    uint32_t ends = 0;
    for (uint32_t n = 1; n < h->nodes; n++) ends += set->command[n] >= 0;
    const graph *g = &set->graph;
    uint32_t graph_ends = 0;
    for (uint32_t n = 0; g->header && n < g->header->nodes; n++) graph_ends += (g->flags[n] & GRAPH_ENDS) != 0;
    d->tree_ends = ends;
    ends += graph_ends < DECODER_GRAPH_OPEN ? graph_ends : DECODER_GRAPH_OPEN;
    d->set = *set;
    d->search.graph = *g;
    d->most_open = ends;
    d->nodes = arena_take(memory, h->nodes, sizeof(node_state));
    d->before = arena_take(memory, h->units, sizeof(double));
    d->now = arena_take(memory, h->units, sizeof(double));
    d->known = arena_take(memory, h->isolation, sizeof(double));
    d->last_heard = arena_take(memory, h->commands, sizeof(double));
    d->open = arena_take(memory, ends, sizeof(candidate));
    d->most_waiting = ends < DECODER_WAITING - DECODER_WAITED ? ends + DECODER_WAITED : DECODER_WAITING;
    d->waiting = arena_take(memory, (size_t)d->most_waiting + 1, sizeof(candidate));
    const templates_header *t = set->templates.header;
    d->recorded.set = set->templates;
    if (t) {
        d->recorded.rows = arena_take(memory, t->rows, sizeof(template_path));
        d->recorded.lately = arena_take(memory, (size_t)t->templates * TEMPLATES_LATELY, sizeof(template_path));
        d->recorded.peaks = arena_take(memory, t->commands, sizeof(template_peak));
    }
    if (!g->header) return;
    const uint32_t readings = d->most_open + d->most_waiting + 1;
    d->search.mass = arena_take(memory, g->header->nodes, sizeof(node_state));
    d->search.flow = arena_take(memory, g->header->nodes, sizeof(graph_flow));
    d->search.path = arena_take(memory, g->header->nodes, sizeof(graph_path));
    d->readings = arena_take(memory, readings, sizeof(graph_path));
    d->reading_used = arena_take(memory, readings, 1);
    d->slots = arena_take(memory, DECODER_SLOTS, sizeof(kouling_slot));
}

void decoder_reset(decoder *d) {
    const commands_header *h = d->set.header;
    d->frame = d->known_count = d->known_at = d->open_count = d->waiting_count = d->slot_count = 0;
    if (d->set.graph.header) graph_reset(&d->search);
    if (d->set.templates.header) templates_reset(&d->recorded);
    memset(d->nodes, 0, h->nodes * sizeof(node_state));
    for (uint32_t u = 0; u < h->units; u++) d->before[u] = 0.0;
    for (uint32_t c = 0; c < h->commands; c++) d->last_heard[c] = -INFINITY;
}

/* The calibrated confidence of a probability; what the length of a sentence adds. */
static double confident(const decoder *d, double p, double more) {
    const double bounded = p < 1e-6 ? 1e-6 : p > 1 - 1e-6 ? 1 - 1e-6 : p;
    const double logit = d->set.header->slope * log(bounded / (1 - bounded)) + d->set.header->bias + more;
    return 1 / (1 + exp(-logit));
}

/* The node in its graph, or -1 where the candidate is one of the tree. */
static int32_t inner_of(const decoder *d, const candidate *c) {
    return c->node >= (int32_t)d->set.header->nodes ? c->node - (int32_t)d->set.header->nodes : -1;
}

static double confidence_of(const decoder *d, const candidate *c) {
    double p = c->probability < 1.0 ? c->probability : 1.0, more = 0.0;
    if (inner_of(d, c) >= 0) { /* a sentence of many words is no less sure than the least sure of them */
        const graph_path *read = &d->readings[c->reading];
        if (read->weakest > p) p = read->weakest;
        more = d->set.graph.header->per_word * (read->depth - 1 < MOST_COUNTED ? read->depth - 1 : MOST_COUNTED);
    }
    return confident(d, p * c->alone, more);
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

static int32_t command_of(const decoder *d, const candidate *c) {
    const int32_t inner = inner_of(d, c);
    return inner < 0 ? d->set.command[c->node] : d->set.graph.command[inner];
}

static int32_t depth_of(const decoder *d, const candidate *c) {
    return inner_of(d, c) < 0 ? d->set.depth[c->node] : d->readings[c->reading].depth;
}

/* Room for a reading that no candidate has. There are never more candidates than room. */
static int32_t free_reading(decoder *d) {
    memset(d->reading_used, 0, (size_t)d->most_open + d->most_waiting + 1);
    for (uint32_t i = 0; i < d->open_count; i++)
        if (inner_of(d, &d->open[i]) >= 0) d->reading_used[d->open[i].reading] = 1;
    for (uint32_t i = 0; i < d->waiting_count; i++)
        if (inner_of(d, &d->waiting[i]) >= 0) d->reading_used[d->waiting[i].reading] = 1;
    int32_t reading = 0;
    while (d->reading_used[reading]) reading++;
    return reading;
}

/* Of the tree every end may be open, of graphs as many as there is room for. */
static int may_open(const decoder *d, int32_t node) {
    uint32_t in_graphs = 0;
    for (uint32_t i = 0; i < d->open_count; i++) in_graphs += inner_of(d, &d->open[i]) >= 0;
    return node < (int32_t)d->set.header->nodes || in_graphs < d->most_open - d->tree_ends;
}

static void flow_into(decoder *d, int32_t node, double flow, double length) {
    candidate *c = open_at(d, node);
    const int is_new = !c && flow > 0.02 && may_open(d, node);
    if (is_new) {
        const candidate made = {.node = node, .opened = d->frame, .alone = 1.0};
        const int32_t reading = inner_of(d, &made) >= 0 ? free_reading(d) : -1;
        c = &d->open[d->open_count++];
        *c = made;
        c->reading = reading;
    }
    if (!c) return;
    const int32_t inner = inner_of(d, c);
    /* The same path, of which more is known now, or one that is likelier than all before. */
    if (inner >= 0 && (is_new || d->search.path[inner].born == d->readings[c->reading].born || flow > c->probability))
        d->readings[c->reading] = graph_reading(&d->search, inner);
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
    if (set->graph.header) {
        const graph *g = &set->graph;
        const graph_frame f = {d->now, d->before, alone, h->max_gap, h->max_frames, h->unknown, d->frame};
        graph_advance(&d->search, &f);
        for (uint32_t n = 0; n < g->header->nodes; n++)
            if (d->search.flow[n].enter > 1e-3 && (g->flags[n] & GRAPH_ENDS))
                flow_into(d, (int32_t)(h->nodes + n), d->search.flow[n].enter, d->search.flow[n].enter_age);
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
        else if (all || confidence_of(d, &c) >= d->set.threshold[command_of(d, &c)])
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
    const candidate *again = open_at(d, c->node);
    if (again && again->probability > 0.5 * c->probability) return 0; /* what may follow now follows that */
    const int32_t inner = inner_of(d, c);
    if (inner >= 0)
        return graph_going_on(&d->search, inner, c->spike, d->frame) > 0.1 * (c->probability < 1.0 ? c->probability : 1.0);
    const int32_t from = set->beyond_at[c->node], to = set->beyond_at[c->node + 1];
    if (from == to) return 0;
    double most = 0.0;
    for (int32_t i = from; i < to; i++) {
        const node_state *n = &d->nodes[set->beyond[i]];
        if (n->said + n->rest > most) most = n->said + n->rest;
    }
    const node_state *own = &d->nodes[c->node];
    return (d->frame - c->spike <= set->header->max_gap ? own->said + own->rest : 0.0) + most > 0.1;
}

/* A word of a slot: the value goes on with it. */
static void add_word(const graph *g, kouling_slot *slot, int32_t node) {
    const char *piece = g->text + g->piece_at[node];
    const uint32_t bytes = g->piece_at[node + 1] - g->piece_at[node];
    slot->number += g->adds[node];
    if (!slot->text) return;
    if (slot->text_bytes == 0) {
        slot->text = piece, slot->text_bytes = bytes;
        return;
    }
    if (!bytes) return;
    if (slot->text != slot->joined) {
        if (slot->text_bytes > sizeof slot->joined) return;
        memcpy(slot->joined, slot->text, slot->text_bytes);
        slot->text = slot->joined;
    }
    if (bytes > sizeof slot->joined - slot->text_bytes) return;
    memcpy(slot->joined + slot->text_bytes, piece, bytes);
    slot->text_bytes += bytes;
}

/* The slots on a path, written behind those of this call -> how many. */
static uint32_t slots_of(decoder *d, const graph_path *path) {
    const graph *g = &d->set.graph;
    kouling_slot *slots = d->slots + d->slot_count;
    uint32_t count = 0;
    int32_t last = -1;
    double probability = 1.0;
    for (int32_t i = 0; i < path->count; i++) {
        const int32_t node = path->node[i], slot = g->slot[node];
        if (slot != last || (g->flags[node] & GRAPH_OPENS)) {
            if (count == KOULING_MAX_SLOTS) break;
            const uint32_t at = g->name_at[slot];
            slots[count++] = (kouling_slot){.name = g->text + at, .name_bytes = g->name_at[slot + 1] - at,
                                            .text = g->is_number[slot] ? NULL : g->text};
            last = slot, probability = 1.0;
        }
        probability *= (double)path->sure[i];
        const double confidence = confident(d, probability, 0.0);
        slots[count - 1].confidence = confidence >= 0.0 ? (float)confidence : 0.0f; /* a strange calibration makes NaN */
        add_word(g, &slots[count - 1], node);
    }
    return count;
}

static kouling_event event_of(decoder *d, const candidate *c, double confidence) {
    const command_set *set = &d->set;
    const commands_header *h = set->header;
    const int32_t command = command_of(d, c), inner = inner_of(d, c);
    const int32_t first = inner < 0 ? set->first_unit[c->node] : d->readings[c->reading].first_unit;
    const int32_t last = inner < 0 ? set->unit[c->node] : set->graph.unit[inner];
    const double spike_s = h->first_frame_s + (c->spike + 0.5) * h->frame_s;
    double start_s = spike_s - c->length * h->frame_s - set->onset_s[first];
    double end_s = spike_s - set->offset_s[last];
    const uint32_t slots = inner < 0 ? 0 : slots_of(d, &d->readings[c->reading]);
    const kouling_slot *said = slots ? d->slots + d->slot_count : NULL;
    d->slot_count += slots;
    start_s = start_s > 0.0 ? start_s : 0.0;
    end_s = end_s > start_s ? end_s : start_s;
    return (kouling_event){set->text + set->name_at[command], set->name_at[command + 1] - set->name_at[command],
                           (uint32_t)command, (float)confidence, start_s, end_s, said, slots};
}

static int better(const decoder *d, const candidate *a, const candidate *b) {
    const int32_t first = depth_of(d, a), second = depth_of(d, b);
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
        const int32_t command = command_of(d, &c);
        const double confidence = confidence_of(d, &c);
        int stands = confidence >= d->set.threshold[command] && !(fabs(c.spike - d->last_heard[command]) < refractory);
        for (uint32_t k = 0; stands && k < d->waiting_count; k++) stands = !overlaps(&c, &d->waiting[k], settle);
        if (!stands) continue;
        int undecided = 0;
        for (uint32_t k = 0; !undecided && k < d->open_count; k++) undecided = overlaps(&c, &d->open[k], settle);
        undecided = !final && (undecided || unsettled(d, &c) || hesitating(d, &c, confidence));
        if (inner_of(d, &c) >= 0 && d->slot_count + KOULING_MAX_SLOTS > DECODER_SLOTS) undecided = 1; /* the next frame or call has room */
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

/* One command that is known from recordings, if one has settled. A command that has phrases too is heard once. */
static uint32_t decide_recorded(decoder *d, uint32_t settle, kouling_event *events) {
    const commands_header *h = d->set.header;
    template_peak peak;
    for (int32_t found; (found = templates_decide(&d->recorded, d->frame, settle, &peak)) >= 0;) {
        const uint32_t command = (uint32_t)d->set.templates.command[found];
        const double tail = d->set.templates.header->tail, end = (double)peak.end + 1.0 - tail;
        if (fabs(end - d->last_heard[command]) < h->refractory || peak.start < d->last_heard[command]) continue;
        if (end > d->last_heard[command]) d->last_heard[command] = end;
        const double start_s = peak.start * h->frame_s, end_s = end * h->frame_s;
        *events = (kouling_event){d->set.text + d->set.name_at[command], d->set.name_at[command + 1] - d->set.name_at[command],
                                  command, peak.likeness < 1.0f ? peak.likeness : 1.0f, start_s,
                                  end_s > start_s ? end_s : start_s, NULL, 0};
        return 1;
    }
    return 0;
}

int decoder_has_room(const decoder *d) { return d->slot_count + DECODER_SLOTS_LEFT <= DECODER_SLOTS; }

uint32_t decoder_advance(decoder *d, const float *log_probs, const float *hidden, kouling_event *events) {
    advance(d, log_probs);
    close_settled(d, 0);
    uint32_t heard = decide(d, 0, events);
    if (d->set.templates.header && hidden) {
        templates_advance(&d->recorded, hidden, d->frame, d->set.threshold);
        heard += decide_recorded(d, d->set.header->settle, events + heard);
    }
    d->frame++;
    return heard;
}

uint32_t decoder_flush(decoder *d, kouling_event *events) {
    close_settled(d, 1);
    const uint32_t heard = decide(d, 1, events);
    return heard + (d->set.templates.header ? decide_recorded(d, 0, events + heard) : 0);
}
