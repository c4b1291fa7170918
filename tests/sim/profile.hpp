// What is drawn for one run of sim_random, and its settings by name: for the command line, and for
// a run that fails and is made smaller.
#pragma once

#include "coord.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace sim {

using coord::Bytes;
using coord::Duration;
using coord::milliseconds;
using coord::Rng;

using u32 = std::uint32_t;
using u64 = std::uint64_t;

// Swarm: each class of faults is on in half of the runs, its strength drawn for the run.
struct Profile {
    u32 voters = 3;
    u32 observers = 0;
    // Whom those prefer to the leader: 0 nobody, up to the voters that one, and above that all
    // voters, from one on.
    u32 feeders = 0;
    u32 replicas() const { return voters + observers; }  // their ids go on from the voters'
    coord::SimulationOptions options;
    coord::SimulatedNetwork network;  // while there are faults
    coord::SimulatedDisk disk;
    bool splits = false;
    bool one_way = false;
    bool bridges = false;
    bool rotation = false;
    bool crashes = false;
    bool crashes_in_poll = false;
    bool power_losses = false;
    bool wipes = false;  // who was down comes back with an empty storage
    bool pauses = false;
    bool stalls = false;
    bool wall_jumps = false;
    bool churn = false;  // clients change who the members are, and who votes
    bool hints = false;  // that a peer is gone: after crashes, and for no reason
    bool hand_overs = false;  // leaders, and others, are told to hand over
    bool rolls = false;       // and each replica is stopped in turn, after that, and started again
    bool at_leader = false;  // faults are aimed at the leader
    bool at_feeders = false;  // or at what is between an observer, its feeder and the leader
    u32 fault_gap_ms = 1000;
    u32 clients_each = 2;  // at each replica
    u32 clients = 0;       // or so many in all, in turn at one replica after the other
    u32 locks = 0;
    u32 op_gap_ms = 20;
    bool acls = false;  // clients say who they are, and set who may do what
    bool quotas = false;  // clients set some
    bool keys = false;    // messages are sealed, and a third party plays with them
    u32 locals_permille = 0;    // of the sessions that are opened: local at first
    bool few_sessions = false;  // so many as there are clients: not all of them find room
    u32 waiting_max = 0;        // requests at a replica; what comes then is throttled
    bool only_plain_reads = false;  // of one node or its children, local: the load is a measure
    u32 readers = 0;                // of streams
    u32 registers = 0;              // nodes whose whole history is kept, and searched for an order
    bool is_recorded = false;       // each life of each replica, and replayed at its end
    bool is_little_kept = false;    // for them: some are cut
    u32 timeout_min_ms = 400;
    u32 timeout_max_ms = 4000;
    Duration faults_for = coord::seconds(12);
    bool canary = false;  // a session that expires after a crash is called a violation: for tests
    // When a run that fails is made smaller: what is done, by its number. With another salt than 0
    // each fault, and each thing that a client does, has a stream of chance of its own, so that the
    // others stay what they are when one is left out.
    u32 salt = 0;
    bool are_all_faults = true;  // or these
    std::vector<u64> faults;
    bool are_all_deeds = true;
    std::vector<u64> deeds;
};

inline void name_feeders(Profile& p) {
    std::vector<coord::PeerId>& feeders = p.options.replica.feeders;
    feeders.clear();
    if (p.feeders == 0 || p.voters == 0) return;
    const u32 count = p.feeders > p.voters ? p.voters : 1;
    for (u32 i = 0; i < count; i++) {
        feeders.push_back(coord::PeerId{(p.feeders - 1 + i) % p.voters + 1});
    }
}

inline Profile draw_profile(u64 seed) {
    Profile p;
    Rng rng(coord::mix64(seed, 0x5a5a));
    const auto on = [&rng] { return rng.chance(500); };
    const auto number = [&rng](u64 low, u64 high) {
        return static_cast<u32>(rng.between(low, high));
    };
    const auto ms = [&rng](u64 low, u64 high) {
        return milliseconds(static_cast<std::int64_t>(rng.between(low, high)));
    };
    p.voters = rng.chance(300) ? 5 : rng.chance(50) ? number(1, 7) : 3;
    p.options.voters = p.voters;
    Rng observing(coord::mix64(seed, 0x6f62));
    if (observing.chance(500)) p.observers = static_cast<u32>(observing.between(1, 2));
    p.options.observers = p.observers;
    p.options.seed = seed;
    p.options.replica.ensemble = coord::mix64(seed, 77);
    p.is_recorded = coord::mix64(seed, 0x7265) % 6 == 0;  // what happens is the same
    p.options.replica.timing.heartbeat = ms(20, 100);
    p.options.replica.timing.silence = p.options.replica.timing.heartbeat * number(4, 8);
    // From a stream of its own.
    Rng reaping(coord::mix64(seed, 0x7e7e));
    p.options.replica.timing.reap_interval =
        milliseconds(static_cast<std::int64_t>(reaping.between(20, 2000)));
    p.options.replica.timing.reaps_per_minute = static_cast<u32>(reaping.between(6000, 120000));
    p.options.replica.limits.removals_max = static_cast<u32>(reaping.between(1, 12));
    if (on()) p.options.replica.snapshot_every_entries = number(1, 200);
    if (on()) p.options.replica.log_entries_kept = number(0, 60);
    p.options.message_bytes_max = on() ? number(1024, 4096) : 64 * 1024;
    if (on()) p.options.poll_delay_max = coord::microseconds(number(1, 3000));
    if (on()) {
        p.options.clocks.rate_permille_min = 950, p.options.clocks.rate_permille_max = 1050;
        p.options.replica.clock_drift_permille = 110;
        p.options.clocks.wall_error_max = coord::seconds(100);
    }
    p.network = p.options.network;
    if (on()) p.network.latency_max = coord::microseconds(number(500, 20000));
    if (on()) p.network.loss_permille = number(1, on() ? 50 : 300);
    if (on()) p.network.repeat_permille = number(1, 300);
    if (on()) {
        p.network.delay_permille = number(1, 200);
        p.network.delay_max = ms(1, on() ? 100 : 5000);
    }
    if (on()) p.network.damage_permille = number(1, 50);
    if (on()) p.disk.flush_max = coord::microseconds(number(100, on() ? 3000 : 60000));
    p.disk.torn = on();
    p.splits = on(), p.one_way = on(), p.bridges = on(), p.rotation = on();
    p.crashes = on(), p.crashes_in_poll = on(), p.power_losses = on();
    p.pauses = on(), p.stalls = on() && p.disk.flush_max.ns > 0, p.wall_jumps = on();
    p.at_leader = on();
    p.wipes = on() && (p.crashes || p.crashes_in_poll || p.power_losses);
    p.fault_gap_ms = number(150, 2000);
    p.clients_each = number(1, 3), p.locks = number(0, 2);
    p.op_gap_ms = number(8, 60);
    p.timeout_min_ms = number(200, 600), p.timeout_max_ms = p.timeout_min_ms + number(1, 3000);
    p.hints = Rng(coord::mix64(seed, 0x6b6b)).chance(500);
    Rng handing(coord::mix64(seed, 0x686f));
    p.hand_overs = handing.chance(500), p.rolls = handing.chance(250);
    p.acls = Rng(coord::mix64(seed, 0x6163)).chance(400);
    Rng churning(coord::mix64(seed, 0x6368));
    p.churn = p.replicas() > 1 && churning.chance(350);
    if (p.churn && p.observers == 0 && churning.chance(500)) p.observers = 2;
    p.options.observers = p.observers;
    if (p.acls || p.churn) p.options.replica.super_digest = coord::digest_id("super:secret");
    p.quotas = Rng(coord::mix64(seed, 0x7174)).chance(300);
    Rng sealing(coord::mix64(seed, 0x736c));
    p.keys = sealing.chance(350);
    if (p.keys) {
        p.options.replica.ensemble_keys = {Bytes(32, 'k'), Bytes(32, 'j')};
        p.options.message_bytes_max += coord::Seals::overhead_bytes;
        // A third party goes on with what it does when the faults are over.
        const u32 often = sealing.chance(800) ? static_cast<u32>(sealing.between(1, 400)) : 0;
        p.network.third_party_permille = p.options.network.third_party_permille = often;
    }
    Rng locals(coord::mix64(seed, 0x6c6f));
    if (locals.chance(600)) p.locals_permille = static_cast<u32>(locals.between(100, 1000));
    p.few_sessions = p.locals_permille > 0 && locals.chance(300);
    if (p.few_sessions) {
        p.options.replica.limits.sessions_max =
            p.replicas() * p.clients_each + (std::min)(p.replicas(), p.locks);
    }
    Rng throttling(coord::mix64(seed, 0x7468));
    if (throttling.chance(200)) {
        p.waiting_max = static_cast<u32>(throttling.between(2, 6));
        p.options.replica.limits.requests_waiting_max = p.waiting_max;
        p.locks = 0;  // a recipe does not ask again
    }
    Rng streams(coord::mix64(seed, 0x7373));
    if (streams.chance(500) && !p.acls) p.readers = static_cast<u32>(streams.between(1, 6));
    p.is_little_kept = streams.chance(300);
    Rng registering(coord::mix64(seed, 0x7267));
    if (registering.chance(250)) p.registers = static_cast<u32>(registering.between(1, 3));
    // Clocks may drift by much then: a lease is to hold however they do.
    Rng leasing(coord::mix64(seed, 0x6c65));
    if (leasing.chance(500)) {
        const coord::Timing& timing = p.options.replica.timing;
        const u64 most = static_cast<u64>(timing.silence.ns / timing.heartbeat.ns);
        p.options.replica.leader_lease =
            timing.heartbeat * static_cast<std::int64_t>(leasing.between(2, most));
        if (leasing.chance(600)) {
            p.options.clocks.rate_permille_min = 800, p.options.clocks.rate_permille_max = 1200;
            p.options.replica.clock_drift_permille = 334;
        }
        if (leasing.chance(400)) p.registers = static_cast<u32>(leasing.between(1, 3));
    }
    if (p.readers > 0) p.options.replica.change_bytes_kept = 64 * 1024 * 1024;
    if (p.readers > 0 && p.is_little_kept) {
        p.options.replica.change_bytes_kept = static_cast<u32>(streams.between(1, 20000));
    }
    Rng feeding(coord::mix64(seed, 0x6665));
    if (p.observers > 0 && feeding.chance(700)) {
        p.feeders = static_cast<u32>(feeding.between(1, u64{p.voters} * 3));
        if (p.feeders > p.voters * 2) p.feeders -= p.voters;
        const bool have_all_room = p.feeders > p.voters && p.voters > 1 && !p.churn;
        if (have_all_room && feeding.chance(300)) p.options.replica.limits.observers_max = 1;
        p.at_feeders = feeding.chance(600);
        if (feeding.chance(600)) {  // some are far from one another
            const auto most = static_cast<u64>(p.options.replica.timing.heartbeat.ns / 8000);
            p.network.distance_max =
                coord::microseconds(static_cast<std::int64_t>(feeding.between(1000, most)));
        }
        p.options.network.distance_max = p.network.distance_max;  // they stay there
        // Who feeds whom is found out in round trips: shorter timeouts do not outlast an election.
        const u32 longer = p.network.distance_max > Duration{} ? 1200 : 400;
        p.timeout_min_ms += longer, p.timeout_max_ms += longer;
        if (p.at_feeders && feeding.chance(400)) {  // what a life is told comes to the next one
            p.network.delay_permille = static_cast<u32>(feeding.between(50, 200));
            p.network.delay_max =
                milliseconds(static_cast<std::int64_t>(feeding.between(500, 5000)));
        }
        if (feeding.chance(300)) p.registers = static_cast<u32>(feeding.between(1, 3));
    }
    name_feeders(p);
    return p;
}

// The load of the design's budget. Nothing is drawn but what the clients do.
inline Profile load_profile(u64 seed) {
    Profile p;
    p.options.seed = seed;
    p.options.replica.ensemble = coord::mix64(seed, 77);
    p.network = p.options.network;
    p.clients = 10;
    p.op_gap_ms = 57;
    p.only_plain_reads = true;
    p.faults_for = coord::seconds(60);
    p.fault_gap_ms = 60000;
    p.options.replica.timing.reap_interval = coord::seconds(1);  // or a quiet minute would count
    return p;
}

// One setting of a profile: a switch, a number, or a time in microseconds.
struct Setting {
    const char* name;
    u64 least;   // the plainest that it can be
    bool is_fault;  // a kind of fault
    bool* flag = nullptr;
    u32* number = nullptr;
    Duration* time = nullptr;

    u64 value() const {
        if (flag != nullptr) return *flag ? 1 : 0;
        return number != nullptr ? *number : static_cast<u64>(time->ns / 1000);
    }
    void set(u64 value) const {
        if (flag != nullptr) *flag = value != 0;
        if (number != nullptr) *number = static_cast<u32>(value);
        if (time != nullptr) *time = coord::microseconds(static_cast<std::int64_t>(value));
    }
};

// Those first without which a run is most easily read.
inline std::vector<Setting> settings_of(Profile& p) {
    std::vector<Setting> all;
    const auto flag = [&all](const char* name, bool& at, bool is_fault) {
        all.push_back({name, 0, is_fault, &at, nullptr, nullptr});
    };
    const auto number = [&all](const char* name, u32& at, u64 least, bool is_fault) {
        all.push_back({name, least, is_fault, nullptr, &at, nullptr});
    };
    const auto time = [&all](const char* name, Duration& at, u64 least, bool is_fault) {
        all.push_back({name, least, is_fault, nullptr, nullptr, &at});
    };
    flag("recording", p.is_recorded, false);
    flag("churn", p.churn, false), flag("keys", p.keys, false), flag("acls", p.acls, false);
    flag("quotas", p.quotas, false), flag("few-sessions", p.few_sessions, false);
    number("throttled", p.waiting_max, 0, false);
    number("registers", p.registers, 0, false), number("readers", p.readers, 0, false);
    number("locks", p.locks, 0, false);
    number("locals", p.locals_permille, 0, false), number("observers", p.observers, 0, false);
    number("feeders", p.feeders, 0, false);
    flag("splits", p.splits, true), flag("one-way", p.one_way, true);
    flag("bridges", p.bridges, true), flag("rotation", p.rotation, true);
    flag("crashes", p.crashes, true), flag("crashes-in-poll", p.crashes_in_poll, true);
    flag("power-losses", p.power_losses, true), flag("wipes", p.wipes, true);
    flag("pauses", p.pauses, true), flag("stalls", p.stalls, true);
    flag("wall-jumps", p.wall_jumps, true), flag("hints", p.hints, true);
    flag("hand-overs", p.hand_overs, true), flag("rolls", p.rolls, true);
    flag("at-feeders", p.at_feeders, true);
    flag("at-leader", p.at_leader, false), flag("torn", p.disk.torn, true);
    number("loss", p.network.loss_permille, 0, true);
    number("repeat", p.network.repeat_permille, 0, true);
    number("delay", p.network.delay_permille, 0, true);
    number("damage", p.network.damage_permille, 0, true);
    number("third-party", p.network.third_party_permille, 0, true);
    time("flush-us", p.disk.flush_max, 0, true);
    time("poll-delay-us", p.options.poll_delay_max, 0, true);
    time("latency-us", p.network.latency_max, 300, false);
    time("distance-us", p.network.distance_max, 0, false);
    number("rate-min", p.options.clocks.rate_permille_min, 1000, true);
    number("rate-max", p.options.clocks.rate_permille_max, 1000, true);
    time("lease-us", p.options.replica.leader_lease, 0, false);
    time("wall-error-us", p.options.clocks.wall_error_max, 0, true);
    number("snapshot-every", p.options.replica.snapshot_every_entries, 10000, false);
    number("log-kept", p.options.replica.log_entries_kept, 1000, false);
    number("voters", p.voters, 1, false), number("clients", p.clients_each, 0, false);
    time("faults-for-us", p.faults_for, 0, false);
    return all;
}

// What follows from the settings. A profile as it was drawn stays as it is.
inline void settle_profile(Profile& p) {
    p.options.voters = p.voters, p.options.observers = p.observers;
    name_feeders(p);
    p.at_feeders = p.at_feeders && p.feeders > 0;
    p.options.network.distance_max = p.network.distance_max;
    p.churn = p.churn && p.replicas() > 1;
    p.wipes = p.wipes && (p.crashes || p.crashes_in_poll || p.power_losses);
    p.stalls = p.stalls && p.disk.flush_max.ns > 0;
    p.options.recording_bytes = p.is_recorded ? 64 * 1024 * 1024 : 0;
    if (!p.keys) p.options.replica.ensemble_keys.clear(), p.network.third_party_permille = 0;
    p.options.network.third_party_permille = p.network.third_party_permille;
    if (p.waiting_max == 0) p.options.replica.limits.requests_waiting_max =
        coord::Limits{}.requests_waiting_max;
    const bool is_bounded = p.options.replica.limits.sessions_max < coord::Limits{}.sessions_max;
    if (is_bounded && !p.few_sessions) {
        p.options.replica.limits.sessions_max = coord::Limits{}.sessions_max;
    } else if (p.few_sessions) {
        p.options.replica.limits.sessions_max =
            p.replicas() * p.clients_each + (std::min)(p.replicas(), p.locks);
    }
}

// "name:value,name:value". RETURNS false where one is unknown.
inline bool apply_settings(Profile& p, const std::string& text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const std::size_t end = (std::min)(text.find(',', at), text.size());
        const std::size_t colon = (std::min)(text.find(':', at), end);
        const std::string name = text.substr(at, colon - at);
        bool is_known = false;
        for (const Setting& setting : settings_of(p)) {
            if (name != setting.name || colon == end) continue;
            setting.set(std::strtoull(text.c_str() + colon + 1, nullptr, 10));
            is_known = true;
        }
        if (!is_known) return false;
        at = end + 1;
    }
    settle_profile(p);
    return true;
}

inline void print_profile(u64 seed, const Profile& p) {
    std::printf(
        "seed %llu: %u voters, %u observers, feeders %u, heartbeat %lld ms, silence %lld ms, "
        "loss %u, repeat %u, delay %u up to %lld ms, damage %u, flush up to %lld us"
        ", far by %lld us%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s%s\n",
        static_cast<unsigned long long>(seed), p.voters, p.observers, p.feeders,
        static_cast<long long>(p.options.replica.timing.heartbeat.ns / 1000000),
        static_cast<long long>(p.options.replica.timing.silence.ns / 1000000),
        p.network.loss_permille, p.network.repeat_permille, p.network.delay_permille,
        static_cast<long long>(p.network.delay_max.ns / 1000000), p.network.damage_permille,
        static_cast<long long>(p.disk.flush_max.ns / 1000),
        static_cast<long long>(p.network.distance_max.ns / 1000), p.disk.torn ? ", torn" : "",
        p.splits ? ", splits" : "", p.one_way ? ", one-way" : "", p.bridges ? ", bridges" : "",
        p.rotation ? ", rotation" : "", p.crashes ? ", crashes" : "",
        p.crashes_in_poll ? ", crashes in poll" : "", p.power_losses ? ", power losses" : "",
        p.wipes ? ", wipes" : "", p.pauses ? ", pauses" : "", p.stalls ? ", stalls" : "",
        p.at_leader ? ", at the leader" : "", p.at_feeders ? ", at feeders" : "",
        p.hints ? ", hints" : "",
        p.hand_overs ? ", hand-overs" : "", p.rolls ? ", a rolling upgrade" : "",
        p.acls ? ", acls" : "",
        p.quotas ? ", quotas" : "", p.keys ? ", keys" : "",
        p.locals_permille > 0 ? ", local sessions" : "",
        p.few_sessions ? ", few sessions" : "", p.registers > 0 ? ", registers" : "",
        p.waiting_max > 0 ? ", throttled" : "", p.is_recorded ? ", recorded" : "",
        p.options.replica.leader_lease.ns > 0 ? ", a lease" : "");
}

}  // namespace sim
