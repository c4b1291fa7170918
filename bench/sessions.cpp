// What sessions, watches and lists cost where there are very many of them:
//
// - a million one-shot watchers, set and fired, beside a multimap of std::function
// - a write while nobody watches, while somebody watches all that is below "/", and afterwards
// - a million children in pages of a thousand: the first pages and the last
// - 10,000 sessions with 100 ephemeral nodes each, all of whose replica dies: the longest poll of
//   the leader while they expire, and how long a write of somebody else waits meanwhile
//
// CPU time of the thread. usage: bench_sessions [--quick]
#include "coord.hpp"
#include "ensemble.hpp"
#include "measure.hpp"

#include <functional>
#include <unordered_map>

namespace {

using coord::CreateMode;
using coord::Result;
using coord::Session;

// A replica alone; it is polled when so many requests are under way.
class Alone {
public:
    explicit Alone(std::size_t in_flight) : in_flight_max_(in_flight) {
        coord::ReplicaOptions options;
        options.entropy = 1;
        options.snapshot_every_entries = UINT32_MAX;  // not what is measured here
        options.snapshot_every_bytes = UINT64_MAX;
        options.limits.nodes_max = 4000000;
        replica_.reset(new coord::Replica(options, disk_));
    }

    Session open() {
        std::unique_ptr<Session> session;
        Session::open(*replica_, {}, [&](Result<Session> s) { session.reset(new Session(*s)); });
        while (!session) poll();
        return *session;
    }
    template <class Call>
    void ask(Call&& call) {
        call();
        in_flight_ += 1;
        while (in_flight_ >= in_flight_max_) poll();
    }
    void answered() { in_flight_ -= 1; }
    void drain() {
        while (in_flight_ > 0) poll();
    }
    void poll() { replica_->poll(now_ = now_ + coord::microseconds(10)); }

    void create(const Session& session, const coord::Bytes& path, coord::BytesView data = "") {
        ask([&] {
            session.create(path, data, [this](const Result<coord::Created>& made) {
                if (!made) std::abort();
                answered();
            });
        });
    }
    void set(const Session& session, const coord::Bytes& path, coord::BytesView data) {
        ask([&] {
            session.set(path, data, [this](Result<coord::Stat> done) {
                if (!done) std::abort();
                answered();
            });
        });
    }

private:
    coord::MemoryStorage disk_;
    std::unique_ptr<coord::Replica> replica_;
    coord::Time now_;
    std::size_t in_flight_ = 0;
    const std::size_t in_flight_max_;
};

coord::Bytes node(std::size_t i) { return "/p/node" + std::to_string(i); }

void watches(std::size_t count, int repeats) {
    const std::size_t nodes = count / 10, sessions = count / 50000 + 1;
    Alone alone(512);
    std::vector<Session> all;
    while (all.size() < sessions) all.push_back(alone.open());
    alone.create(all[0], "/p");
    for (std::size_t i = 0; i < nodes; i++) alone.create(all[0], node(i));
    alone.drain();
    measure::Spread set, fired, map_set, map_fired;
    for (int round = 0; round < repeats; round++) {
        std::size_t told = 0;
        set.add(measure::ns_per_turn(count, [&] {
            for (std::size_t i = 0; i < count; i++) {
                alone.ask([&] {
                    all[i % sessions].exists(
                        node(i % nodes), [&](const coord::WatchEvent&) { told += 1; },
                        [&](Result<coord::Stat>) { alone.answered(); });
                });
            }
            alone.drain();
        }));
        fired.add(measure::ns_per_turn(count, [&] {
            for (std::size_t i = 0; i < nodes; i++) alone.set(all[0], node(i), "x");
            alone.drain();
        }));
        if (told != count) std::abort();

        std::unordered_multimap<std::string, std::function<void(const std::string&)>> map;
        map_set.add(measure::ns_per_turn(count, [&] {
            for (std::size_t i = 0; i < count; i++) {
                map.emplace(node(i % nodes), [&](const std::string&) { told += 1; });
            }
        }));
        map_fired.add(measure::ns_per_turn(count, [&] {
            for (std::size_t i = 0; i < nodes; i++) {
                const std::string path = node(i);
                const auto range = map.equal_range(path);
                for (auto at = range.first; at != range.second; ++at) at->second(path);
                map.erase(range.first, range.second);
            }
        }));
        if (told != 2 * count) std::abort();
    }
    std::printf("%zu one-shot watchers of %zu nodes\n", count, nodes);
    measure::print_row("set, with a read", set);
    measure::print_row("the same, in a multimap", map_set);
    measure::print_ratio(set, map_set);
    measure::print_row("fired, a tenth of a write each", fired);
    measure::print_row("the same, from the multimap", map_fired);
    measure::print_ratio(fired, map_fired);
}

void recursive(std::size_t nodes, int repeats) {
    Alone alone(64);
    const Session session = alone.open();
    alone.create(session, "/p");
    for (std::size_t i = 0; i < nodes; i++) alone.create(session, node(i));
    alone.drain();
    const std::size_t writes = nodes / 10;
    coord::Rng rng(1);
    const auto write = [&] {
        return measure::ns_per_turn(writes, [&] {
            for (std::size_t i = 0; i < writes; i++) {
                alone.set(session, node(static_cast<std::size_t>(rng.below(nodes))), "x");
            }
            alone.drain();
        });
    };
    measure::Spread before, during, after;
    std::size_t told = 0;
    for (int i = 0; i < repeats; i++) {
        before.add(write());
        session.add_watch(
            "/", coord::AddWatchMode::persistent_recursive,
            [&](const coord::WatchEvent&) { told += 1; }, {});
        alone.poll();
        const std::size_t told_before = told;
        during.add(write());
        if (told != told_before + writes) std::abort();
        session.remove_watches("/", coord::WatcherType::persistent_recursive, {});
        alone.poll();
        const std::size_t told_last = told;
        after.add(write());
        if (told != told_last) std::abort();
    }
    std::printf("sets of %zu nodes, 64 in flight\n", nodes);
    measure::print_row("nobody watches", before);
    measure::print_row("somebody watches all below /, and is told", during);
    measure::print_row("not any more", after);
}

void paging(std::size_t nodes, int repeats) {
    Alone alone(512);
    const Session session = alone.open();
    alone.create(session, "/p");
    for (std::size_t i = 0; i < nodes; i++) alone.create(session, node(i));
    alone.drain();
    measure::Spread first, last;
    for (int round = 0; round < repeats; round++) {
        coord::Bytes after;
        std::size_t listed = 0;
        const std::size_t pages = nodes / 1000, part = pages / 10;
        const auto list = [&](std::size_t count) {
            return measure::ns_per_turn(count, [&] {
                for (std::size_t i = 0; i < count; i++) {
                    coord::Page page;
                    page.after = after, page.limit = 1000;
                    session.children("/p", page, [&](const Result<coord::Children>& found) {
                        listed += found->names.size();
                        after = found->names.back();
                        alone.answered();
                    });
                    alone.ask([] {});
                    alone.drain();
                }
            });
        };
        first.add(list(part) / 1000);
        list(pages - 2 * part);
        last.add(list(part) / 1000);
        if (listed != nodes) std::abort();
    }
    std::printf("%zu children, pages of 1,000, us a page\n", nodes);
    measure::print_row("the first tenth", first);
    measure::print_row("the last tenth", last);
}

void expiry(std::size_t sessions, std::size_t nodes) {
    bench::Ensemble ensemble;
    coord::Replica* const home = ensemble.follower();
    coord::Replica& leader = *ensemble.leader();
    std::unique_ptr<Session> other;
    Session::open(leader, {coord::seconds(60)},
                  [&](Result<Session> s) { other.reset(new Session(*s)); });
    while (!other) ensemble.turn();
    other->create("/p", "", {});
    std::size_t wanted = 0, made = 0;
    for (std::size_t i = 0; i < sessions; i++) {
        Session::open(*home, {coord::seconds(4)}, [&](Result<Session> session) {
            for (std::size_t k = 0; k < nodes; k++) {
                session->create("/p/", "", CreateMode::ephemeral_sequential,
                                [&](const Result<coord::Created>& r) {
                                    if (!r) std::abort();
                                    made += 1;
                                });
            }
        });
        wanted += nodes;
        while (wanted - made > 2000) ensemble.turn();
    }
    while (made < wanted || !ensemble.is_whole()) ensemble.turn();
    ensemble.kill(home);

    const coord::Machine& machine = leader.machine();
    const coord::Time silent_from = ensemble.now();
    std::vector<double> polls;
    double wait_us = 0, waits_us = 0, spent_us = 0;
    bool is_asked = false;
    while (machine.sessions().size() > 1) {
        if (ensemble.now() - silent_from > coord::seconds(30)) std::abort();
        if (!is_asked) {
            is_asked = true, wait_us = 0;
            other->set("/p", "x", [&](Result<coord::Stat> set) {
                if (!set) std::abort();
                is_asked = false;
                waits_us = (std::max)(waits_us, wait_us);
            });
        }
        const bool has_begun = leader.leader_counters().sessions_expired > 0;
        const double before = measure::thread_us();
        leader.poll(ensemble.now());
        const double poll_us = measure::thread_us() - before;
        ensemble.turn(has_begun ? coord::microseconds(100) : coord::milliseconds(5));
        wait_us += measure::thread_us() - before;
        if (!has_begun) continue;
        polls.push_back(poll_us);
        spent_us += poll_us;
    }
    std::sort(polls.begin(), polls.end());
    const auto at = [&](double part) {
        return polls[static_cast<std::size_t>(part * static_cast<double>(polls.size() - 1))];
    };
    std::printf("%zu sessions with %zu nodes each expire: us of the leader's polls\n", sessions,
                nodes);
    std::printf("  %-42s %10.1f %10.1f %10.1f %10.1f  (%zu polls)\n", "median, p99, p99.9, max",
                at(0.5), at(0.99), at(0.999), at(1), polls.size());
    std::printf("  %-42s %10.1f ms\n", "all of the leader's polls", spent_us / 1000);
    std::printf("  %-42s %10.1f ms\n", "the longest wait of a write of another", waits_us / 1000);
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const std::size_t nodes = quick ? 20000 : 1000000;
    const int repeats = quick ? 1 : 5;
    measure::print_head("sessions, watches, lists", "ns CPU");
    watches(nodes, repeats);
    recursive(nodes, repeats);
    paging(nodes, repeats);
    expiry(quick ? 200 : 10000, 100);
    return 0;
}
