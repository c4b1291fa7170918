// For how long nobody leads, in simulated time: the leader hands over, or is killed, and the others
// are told so by their transport, or not. From that moment to the acknowledgement of a write that
// is asked for at once, by how long a message takes. Nothing here depends on the machine.
//
// usage: bench_failover [--quick]
#include "coord.hpp"
#include "measure.hpp"

namespace {

using coord::Duration;
using coord::PeerId;
using coord::Simulation;

enum class Event { nothing, hand_over, killed_with_hint, killed_without };
enum class Place { leader, follower };  // where the client is; the follower is not the next leader

struct Setting {
    std::uint32_t voters = 3;
    Duration latency;  // one way
    Duration flush;
};

// RETURNS ms.
double run(const Setting& setting, Event event, Place place, std::uint64_t seed) {
    coord::SimulationOptions options;
    options.voters = setting.voters, options.seed = seed;
    options.network.latency_min = options.network.latency_max = setting.latency;
    options.disk.flush_min = options.disk.flush_max = setting.flush;
    Simulation sim(options);
    if (!sim.run_until([&] { return sim.leader() != PeerId{}; }, coord::seconds(60))) std::abort();
    sim.run_for(coord::seconds(5) + coord::milliseconds(static_cast<std::int64_t>(seed * 7)));
    const PeerId leader = sim.leader();
    PeerId client{leader.value % setting.voters + 1};
    PeerId next{client.value % setting.voters + 1};  // with equal histories the highest id wins
    const bool is_killed = event == Event::killed_with_hint || event == Event::killed_without;
    if (is_killed && next < client) std::swap(client, next);
    if (place == Place::leader) client = leader;
    coord::Result<coord::Session> opened =
        coord::Sync::open(sim.replica(client), {coord::seconds(60)}, sim.pump());
    if (!opened) std::abort();
    coord::Session session = *opened;
    sim.run_for(coord::seconds(1));
    if (sim.leader() != leader) std::abort();
    if (event == Event::hand_over && sim.replica(leader).hand_over(next) != coord::Errc::ok) {
        std::abort();
    }
    if (is_killed) sim.crash(leader);
    for (std::uint32_t id = 1; id <= setting.voters && event == Event::killed_with_hint; id++) {
        const PeerId told{id};
        if (told == leader) continue;
        sim.after(setting.latency, [&sim, told, leader] { sim.forget(told, leader); });
    }
    const coord::Time since = sim.now();
    bool is_done = false;
    session.create("/n", "x", [&](coord::Result<coord::Created> created) {
        if (!created) std::abort();
        is_done = true;
    });
    if (!sim.run_until([&] { return is_done; }, coord::seconds(60))) std::abort();
    return static_cast<double>((sim.now() - since).ns) / 1e6;
}

void report(const char* label, const Setting& setting, Event event, Place place, int runs) {
    measure::Spread spread;
    for (int i = 1; i <= runs; i++) {
        spread.add(run(setting, event, place, static_cast<std::uint64_t>(i)));
    }
    measure::print_row(label, spread);
}

void report_all(const Setting& setting, int runs) {
    std::printf("%u voters, a message takes %.1f ms, a flush %.1f ms\n", setting.voters,
                static_cast<double>(setting.latency.ns) / 1e6,
                static_cast<double>(setting.flush.ns) / 1e6);
    report("a write at the leader", setting, Event::nothing, Place::leader, runs);
    report("a write at a follower", setting, Event::nothing, Place::follower, runs);
    report("handed over, client at that leader", setting, Event::hand_over, Place::leader, runs);
    report("handed over, at a follower", setting, Event::hand_over, Place::follower, runs);
    report("killed, with a hint", setting, Event::killed_with_hint, Place::follower, runs);
    report("killed, without", setting, Event::killed_without, Place::follower, runs);
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const int runs = quick ? 3 : 21;
    measure::print_head("failover, in simulated time", "ms to the first write");
    for (const std::int64_t us : {100, 1000, 5000, 20000, 50000}) {
        report_all({3, coord::microseconds(us), {}}, runs);
    }
    report_all({3, coord::microseconds(100), coord::milliseconds(5)}, runs);
    report_all({5, coord::milliseconds(5), {}}, runs);
    return 0;
}
