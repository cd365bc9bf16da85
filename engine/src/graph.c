#include "graph.h"

#include <math.h>
#include <string.h>

#define SAME_FRAMES 4     /* in which a sentence that begins twice with the same unit is one */
#define LEAST_FLOW 1e-4   /* of a path that is worth keeping */
#define SURE_LINK 0.5     /* of a path that is preferred to a shorter one */

void graph_reset(graph_search *s) {
    const uint32_t nodes = s->graph.header->nodes;
    memset(s->mass, 0, nodes * sizeof *s->mass);
    memset(s->flow, 0, nodes * sizeof *s->flow);
    memset(s->path, 0, nodes * sizeof *s->path);
    for (uint32_t n = 0; n < nodes; n++) {
        s->flow[n].base = s->flow[n].kept = s->path[n].weakest = 1.0;
        s->flow[n].via = -1;
        s->path[n].born = -1 - SAME_FRAMES;
    }
}

static double how_sure(const graph_flow *flow) {
    const double share = flow->flow / fmax(flow->base, 1e-30);
    return share < 1.0 ? share : 1.0;
}

/* What flows into a node, and by which path: of those whose every link is sure the longest, else the one by which most
 * of it comes. A product of probabilities would favour what says least. */
static void flow_in(graph_search *s, const graph_frame *f, uint32_t n) {
    const graph *g = &s->graph;
    graph_flow *own = &s->flow[n];
    const int32_t u = g->unit[n];
    double total = 0.0, ages = 0.0, most = 0.0;
    int32_t via = -1, highest = 0;
    for (uint32_t i = g->before_at[n]; i < g->before_at[n + 1]; i++) {
        const int32_t arc_from = g->before[i], before = arc_from < 0 ? ~arc_from : arc_from;
        const double share = arc_from < 0 ? g->header->past_weak : 1.0;
        const node_state *m = &s->mass[before];
        const double said = g->unit[before] == u ? 0.0 : m->said * share; /* a unit that follows itself needs a blank */
        const double rest = m->rest * share, arc = said + rest;
        total += arc;
        ages += said * m->said_age + rest * m->rest_age;
        const int32_t rank = s->flow[before].link >= SURE_LINK && arc > LEAST_FLOW ? s->path[before].depth : 0;
        if (via < 0 || rank > highest || (rank == highest && arc > most)) highest = rank, most = arc, via = before;
    }
    const double reached = total < 1.0 ? total : 1.0; /* two readings of the same words would count twice */
    double fresh = 0.0;
    if (g->flags[n] & GRAPH_STARTS) fresh = fmax((1.0 - f->before[u]) - reached, 0.0) * f->alone;
    own->source = reached + fresh;
    own->enter = f->now[u] * own->source;
    own->enter_age = (ages * (reached / fmax(total, 1e-30)) + reached) / fmax(own->source, 1e-30);
    own->next_via = highest > 0 || most >= fresh ? via : -1;
}

/* The recursion at a node, and whether its path is another from now on. */
static void flow_on(graph_search *s, const graph_frame *f, uint32_t n, double quiet) {
    node_state *m = &s->mass[n];
    graph_flow *own = &s->flow[n];
    const double unit = f->now[s->graph.unit[n]], enter = own->enter, stay = unit * m->said;
    const double total = m->said + m->rest, safe = fmax(total, 1e-30), said = enter + stay;
    const double rest_age = (m->said * m->said_age + m->rest * m->rest_age) / safe + 1.0;
    const double rest_gap = m->rest * m->rest_gap / safe + 1.0;
    m->said_age = (enter * own->enter_age + stay * (m->said_age + 1.0)) / fmax(said, 1e-30);
    m->rest = rest_gap <= f->max_gap && rest_age <= f->max_frames ? quiet * total : 0.0;
    m->said = said < unit ? said : unit;
    m->rest_age = rest_age;
    m->rest_gap = rest_gap;
    const double left = stay + m->rest;
    own->taken = enter > (left > LEAST_FLOW ? left : LEAST_FLOW);
    if (own->taken && own->next_via == own->via) /* a unit that is said in several frames comes by the same path in all */
        own->taken = own->via >= 0 ? s->path[own->via].born != own->via_born
                                   : (int64_t)f->frame - s->path[n].born > SAME_FRAMES;
}

static void note(const graph_search *s, graph_path *path, int32_t node, double sure) {
    if (s->graph.slot[node] < 0 || path->count >= GRAPH_PATH) return;
    path->node[path->count] = node;
    path->sure[path->count++] = (float)sure;
}

void graph_advance(graph_search *s, const graph_frame *f) {
    const uint32_t nodes = s->graph.header->nodes;
    const double fillers = s->graph.header->fillers, begun = f->before[f->unknown];
    /* An unknown word has its price once, however many frames it takes. */
    const double filler = f->unknown && fillers > 0.0 ? begun + (1.0 - begun) * fillers : 0.0;
    const double silent = f->now[0] + filler * f->now[f->unknown];
    const double quiet = silent < 1.0 ? silent : 1.0;
    for (uint32_t n = 0; n < nodes; n++) {
        const double link = how_sure(&s->flow[n]) * s->flow[n].kept;
        s->flow[n].link = link < s->path[n].weakest ? link : s->path[n].weakest;
    }
    for (uint32_t n = 0; n < nodes; n++) flow_in(s, f, n);
    for (uint32_t n = 0; n < nodes; n++) flow_on(s, f, n, quiet);
    for (uint32_t n = nodes; n-- > 0;) { /* the later nodes first: they take the paths of earlier ones as they were */
        graph_flow *own = &s->flow[n];
        const int32_t via = own->next_via;
        /* Behind a node that something is repeated from, whose own path is another from this frame on, the old one stays. */
        if (!own->taken || (via > (int32_t)n && s->flow[via].taken)) {
            if (own->taken) own->taken = 2;
            continue;
        }
        graph_path *path = &s->path[n];
        if (via >= 0) {
            const double sure = how_sure(&s->flow[via]);
            own->via_born = s->path[via].born;
            if (via != (int32_t)n) *path = s->path[via];
            note(s, path, via, sure);
            path->depth++;
            path->weakest = s->flow[via].link;
        } else {
            own->via_born = (int32_t)f->frame;
            path->count = 0, path->depth = 1, path->weakest = 1.0, path->first_unit = s->graph.unit[n];
        }
    }
    for (uint32_t n = 0; n < nodes; n++) {
        graph_flow *own = &s->flow[n];
        if (own->taken == 1) {
            own->flow = 0.0, own->base = own->source, own->via = own->next_via;
            s->path[n].born = (int32_t)f->frame;
            own->kept = 1.0;
        } else {
            const double kept = quiet + f->now[s->graph.unit[n]];
            if (kept < 1.0) own->kept *= kept;
        }
        own->flow += own->enter;
    }
}

graph_path graph_reading(const graph_search *s, int32_t node) {
    graph_path path = s->path[node];
    const double sure = how_sure(&s->flow[node]);
    note(s, &path, node, sure);
    if (sure < path.weakest) path.weakest = sure;
    return path;
}

double graph_going_on(const graph_search *s, int32_t node, double spike, uint32_t frame) {
    const graph *g = &s->graph;
    const int32_t command = g->command[node];
    uint32_t from = (uint32_t)node, to = from; /* a command's nodes lie side by side */
    while (from > 0 && g->command[from - 1] == command) from--;
    while (to < g->header->nodes && g->command[to] == command) to++;
    double most = 0.0;
    for (uint32_t n = from; n < to; n++) {
        const node_state *m = &s->mass[n];
        if (!(g->flags[n] & GRAPH_GOES_ON)) continue;
        const double said = frame - m->said_age <= spike + 1.0 ? m->said : 0.0;
        const double rest = frame - m->rest_age <= spike + 1.0 && frame - m->rest_gap >= spike - 1.0 ? m->rest : 0.0;
        if (said + rest > most) most = said + rest;
    }
    return most;
}
