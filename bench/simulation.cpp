// Simulated seconds per second of CPU: three idle replicas, three that write, and five that write
// while messages are lost, repeated and reordered. Then what a linearizable read takes, with a
// leader's lease and without one: messages, and time on a network of 1 ms each way.
//
// The reference is real time: what the same wait would cost a test that sleeps.
//
// usage: bench_simulation [--quick]
#include "coord.hpp"
#include "measure.hpp"

#include <cstdio>
#include <functional>
#include <memory>

namespace {

coord::Session open_at(coord::Simulation& simulation, std::uint32_t replica) {
    coord::Result<coord::Session> session =
        coord::Sync::open(simulation.replica(replica), {}, simulation.pump());
    if (!session) std::abort();
    return *session;
}

// A client that sets its node, again when the answer comes, `gap` later.
struct Client {
    coord::Simulation& simulation;
    coord::Session session;
    coord::Duration gap;
    std::uint64_t done = 0;

    void set() {
        session.set("/node", "a value of some length", [this](coord::Result<coord::Stat>) {
            done += 1;
            simulation.after(gap, [this] { set(); });
        });
    }
};

double speed(std::uint32_t voters, std::size_t clients, bool faults, coord::Duration length) {
    coord::SimulationOptions options;
    options.voters = voters;
    options.seed = 7;
    if (faults) {
        options.network.loss_permille = 20;
        options.network.repeat_permille = 20;
        options.network.delay_permille = 50;
    }
    coord::Simulation simulation(options);
    if (!simulation.run_until([&] { return simulation.leader() != coord::PeerId{}; },
                              coord::seconds(60))) {
        std::abort();
    }
    std::vector<std::unique_ptr<Client>> working;
    for (std::size_t i = 0; i < clients; i++) {
        const std::uint32_t replica = static_cast<std::uint32_t>(i % voters) + 1;
        working.emplace_back(new Client{simulation, open_at(simulation, replica),
                                        coord::milliseconds(100)});
        if (i == 0) working[0]->session.create("/node", "", {});
        working.back()->set();
    }
    const double start = measure::cpu_seconds();
    simulation.run_for(length);
    const double spent = measure::cpu_seconds() - start;
    for (const auto& client : working) {
        if (client->done == 0) std::abort();
    }
    return static_cast<double>(length.ns) / 1e9 / spent;
}

void report(const char* label, std::uint32_t voters, std::size_t clients, bool faults,
            coord::Duration length, int repeats) {
    measure::Spread spread;
    for (int i = 0; i < repeats; i++) spread.add(speed(voters, clients, faults, length));
    measure::print_row(label, spread);
}

// What so many linearizable reads, one after the other, take each.
struct Reads {
    double messages;
    double us;
};

Reads reads(bool has_lease, bool at_leader, int count) {
    coord::SimulationOptions options;
    options.network.latency_min = options.network.latency_max = coord::milliseconds(1);
    if (has_lease) options.replica.leader_lease = coord::milliseconds(300);
    coord::Simulation simulation(options);
    const auto is_led = [&] { return simulation.leader() != coord::PeerId{}; };
    if (!simulation.run_until(is_led, coord::seconds(60))) std::abort();
    const std::uint32_t leader = simulation.leader().value;
    const coord::Session session = open_at(simulation, at_leader ? leader : leader % 3 + 1);
    simulation.run_for(coord::seconds(1));
    int done = 0;
    std::function<void()> next = [&] {
        if (done == count) return;
        session.linearizable().exists("/", [&](coord::Result<coord::Stat> found) {
            if (!found) std::abort();
            done += 1;
            next();
        });
    };
    const std::uint64_t before = simulation.counters().messages_sent;
    const coord::Time begin = simulation.now();
    next();
    if (!simulation.run_until([&] { return done == count; }, coord::seconds(600))) std::abort();
    const std::uint64_t sent = simulation.counters().messages_sent - before;
    return {static_cast<double>(sent) / count,
            static_cast<double>((simulation.now() - begin).ns) / 1e3 / count};
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const int repeats = quick ? 2 : 7;
    const coord::Duration idle = coord::seconds(quick ? 600 : 36000);
    const coord::Duration busy = coord::seconds(quick ? 30 : 600);
    measure::print_head("simulation", "simulated seconds a second of CPU");
    report("3 voters, idle", 3, 0, false, idle, repeats);
    report("3 voters, 10 clients, 100 writes/s", 3, 10, false, busy, repeats);
    report("5 voters, 10 clients, lossy network", 5, 10, true, busy, repeats);
    std::printf("\n%-44s %10s %10s\n", "a linearizable read, three voters", "messages", "us");
    for (const bool has_lease : {false, true}) {
        for (const bool at_leader : {true, false}) {
            const Reads each = reads(has_lease, at_leader, quick ? 200 : 5000);
            const char* const label = at_leader ? (has_lease ? "at the leader, with a lease"
                                                             : "at the leader, by a round")
                                                : (has_lease ? "at a follower, with a lease"
                                                             : "at a follower, by a round");
            std::printf("%-44s %10.2f %10.0f\n", label, each.messages, each.us);
        }
    }
    return 0;
}
