// Committed writes through three replicas and their trees in one process: CPU nanoseconds and heap
// allocations a write, for values of 16, 128 and 1024 bytes with 1, 64 and 1024 writes in flight.
//
// The reference is a loop that makes the same copies and no protocol: the value into a request, the
// request into a record, the record into two messages, two inboxes, three logs, three storages and
// three values. What is above it is Zab, sessions, trees, checksums and callbacks.
//
// Then what voters and observers cost: CPU of all and of the leader's polls, what it sends. Then
// what seals cost: the hash of a message beside its checksum, and writes without keys and with one.
// Then what it costs that all three are recorded.
//
// usage: bench_write [--quick], or --leader=N: 3 voters, N observers and 5,000 writes, and nothing
// else, for callgrind; --fed=N: they hang on a follower. See poll_metered in ensemble.hpp.
#include "coord.hpp"
#include "ensemble.hpp"
#include "measure.hpp"

namespace {

using namespace coord::detail;

// Sets of one node through the leader's session.
class Writes : public bench::Ensemble {
public:
    explicit Writes(std::uint32_t voters = 3, std::uint32_t observers = 0, bool seals = false,
                    bool is_recorded = false, bool feeds = false)
        : Ensemble(voters, observers, seals, is_recorded, feeds) {
        coord::SessionId id;
        leader()->open_session({}, [&](coord::Result<coord::SessionId> s) { id = s.value(); });
        while (id == coord::SessionId{}) turn();
        session_ = id;
    }

    // Keeps `in_flight` sets under way until `count` are done.
    void write(std::size_t count, std::size_t in_flight, const coord::Bytes& value) {
        coord::Replica& replica = *leader();
        std::size_t submitted = 0;
        done_ = 0;
        while (done_ < count) {
            while (submitted < count && submitted - done_ < in_flight) {
                coord::Request request;
                request.kind = coord::Request::Kind::set;
                request.path = "/value", request.data = value;
                request.done = coord::OnStat([this](coord::Result<coord::Stat> r) {
                    if (!r) std::abort();
                    done_ += 1;
                });
                replica.submit(session_, std::move(request));
                submitted += 1;
            }
            turn();
        }
    }

    void create() {
        coord::Request request;
        request.kind = coord::Request::Kind::create;
        request.path = "/value";
        leader()->submit(session_, std::move(request));
        turn(), turn(), turn(), turn();
    }

private:
    coord::SessionId session_;
    std::size_t done_ = 0;
};

// The copies of a write without the protocol around them.
class Copies {
public:
    void write(std::size_t count, const coord::Bytes& value) {
        for (std::size_t i = 0; i < count; i++) {
            request_.assign(value);
            record_.assign(header_).append(request_);
            for (std::size_t peer = 0; peer < 2; peer++) {
                message_[peer].assign(header_).append(record_);
                inbox_[peer].assign(message_[peer]);
            }
            for (std::size_t replica = 0; replica < 3; replica++) {
                log_[replica].push().assign(record_);
                storage_[replica].push().assign(record_);
                if (log_[replica].size() > 10000) log_[replica].pop(), storage_[replica].pop();
                value_[replica].assign(value);
            }
            measure::keep(static_cast<unsigned char>(value_[i % 3].back()));
        }
    }

private:
    coord::Bytes header_ = coord::Bytes(62, 'h');
    coord::Bytes request_, record_, message_[2], inbox_[2], value_[3];
    Ring<coord::Bytes> log_[3], storage_[3];
};

void compare(std::size_t bytes, std::size_t in_flight, std::size_t count, int repeats) {
    Writes ensemble;
    Copies copies;
    const coord::Bytes value(bytes, 'v');
    ensemble.create();
    ensemble.write(35000, in_flight, value);  // three snapshots: every queue and block has its size
    copies.write(35000, value);
    measure::Spread ours, reference;
    std::uint64_t made = 0;
    for (int i = 0; i < repeats; i++) {
        const std::uint64_t before = measure::heap.allocations;
        const double spent =
            measure::ns_per_turn(count, [&] { ensemble.write(count, in_flight, value); });
        made += measure::heap.allocations - before;
        ours.add(spent);
        reference.add(measure::ns_per_turn(count, [&] { copies.write(count, value); }));
    }
    for (int i = 0; i < 1000 && !ensemble.is_whole(); i++) ensemble.turn();
    if (!ensemble.is_whole()) std::abort();
    std::printf("%zu bytes, %zu in flight\n", bytes, in_flight);
    measure::print_row("coord", ours);
    measure::print_row("copies alone", reference);
    measure::print_ratio(ours, reference);
    std::printf("  %-42s %10llu in %zu writes\n", "allocations",
                static_cast<unsigned long long>(made), count * static_cast<std::size_t>(repeats));
}

// Of 128 bytes, 64 in flight.
void grow(std::uint32_t voters, std::uint32_t observers, bool feeds, std::size_t count,
          int repeats) {
    Writes ensemble(voters, observers, false, feeds);
    const coord::Bytes value(128, 'v');
    ensemble.create();
    ensemble.write(count, 64, value);
    coord::Replica& leader = *ensemble.leader();
    measure::Spread all, leaders;
    const coord::ReplicaCounters before = leader.counters();
    for (int i = 0; i < repeats; i++) {
        ensemble.meter(&leader);
        all.add(measure::ns_per_turn(count, [&] { ensemble.write(count, 64, value); }));
        leaders.add(ensemble.metered_ns() / static_cast<double>(count));
    }
    const coord::ReplicaCounters after = leader.counters();
    for (int i = 0; i < 1000 && !ensemble.is_whole(); i++) ensemble.turn();
    if (!ensemble.is_whole()) std::abort();
    const double writes = static_cast<double>(count) * repeats;
    std::printf("%u voters, %u observers%s\n", voters, observers, feeds ? " at a follower" : "");
    measure::print_row("all", all);
    measure::print_row("the leader", leaders);
    std::printf("  %-42s %10.3f messages, %.0f bytes\n", "it sends a write",
                static_cast<double>(after.messages_sent - before.messages_sent) / writes,
                static_cast<double>(after.bytes_sent - before.bytes_sent) / writes);
}

void hash(std::size_t bytes, std::size_t count, int repeats) {
    coord::Bytes message(bytes, 'm');
    measure::Spread seal, checksum;
    for (int i = 0; i < repeats; i++) {
        seal.add(measure::ns_per_turn(count, [&] {
            for (std::size_t k = 0; k < count; k++) {
                message[0] = static_cast<char>(k);
                measure::keep(static_cast<unsigned char>(coord::siphash(message, {1, 2}).low));
            }
        }));
        checksum.add(measure::ns_per_turn(count, [&] {
            for (std::size_t k = 0; k < count; k++) {
                message[0] = static_cast<char>(k);
                measure::keep(static_cast<unsigned char>(coord::crc32c(message)));
            }
        }));
    }
    std::printf("a message of %zu bytes\n", bytes);
    measure::print_row("SipHash-2-4, 128 bits", seal);
    measure::print_row("CRC32C", checksum);
    measure::print_ratio(seal, checksum);
}

void seal(std::size_t in_flight, std::size_t count, int repeats) {
    Writes open, sealed(3, 0, true);
    const coord::Bytes value(128, 'v');
    open.create(), sealed.create();
    open.write(count, in_flight, value), sealed.write(count, in_flight, value);
    measure::Spread without, with;
    for (int i = 0; i < repeats; i++) {
        with.add(measure::ns_per_turn(count, [&] { sealed.write(count, in_flight, value); }));
        without.add(measure::ns_per_turn(count, [&] { open.write(count, in_flight, value); }));
    }
    std::printf("128 bytes, %zu in flight\n", in_flight);
    measure::print_row("sealed", with);
    measure::print_row("not sealed", without);
    measure::print_ratio(with, without);
}

// All three replicas, recorded or not. What was recorded is taken between the measured stretches.
void record(std::size_t in_flight, std::size_t count, int repeats) {
    Writes plain, recorded(3, 0, false, true);
    const coord::Bytes value(128, 'v');
    plain.create(), recorded.create();
    for (int i = 0; i < 3; i++) {  // every queue and block has its size
        plain.write(count, in_flight, value), recorded.write(count, in_flight, value);
        (void)recorded.take_recordings();
    }
    measure::Spread without, with;
    std::uint64_t made = 0, bytes = 0;
    for (int i = 0; i < repeats; i++) {
        const std::uint64_t before = measure::heap.allocations;
        const double spent =
            measure::ns_per_turn(count, [&] { recorded.write(count, in_flight, value); });
        made += measure::heap.allocations - before;
        with.add(spent);
        bytes += recorded.take_recordings();
        without.add(measure::ns_per_turn(count, [&] { plain.write(count, in_flight, value); }));
    }
    const double writes = static_cast<double>(count) * repeats;
    std::printf("128 bytes, %zu in flight\n", in_flight);
    measure::print_row("recorded", with);
    measure::print_row("not recorded", without);
    measure::print_ratio(with, without);
    std::printf("  %-42s %10.1f bytes, %llu allocations in all\n", "recorded of a write, by three",
                static_cast<double>(bytes) / writes, static_cast<unsigned long long>(made));
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; i++) {
        unsigned observers = 0;
        const bool is_fed = std::sscanf(argv[i], "--fed=%u", &observers) == 1;
        if (!is_fed && std::sscanf(argv[i], "--leader=%u", &observers) != 1) continue;
        grow(3, observers, is_fed, 5000, 1);
        return 0;
    }
    const bool quick = measure::is_quick(argc, argv);
    const std::size_t count = quick ? 15000 : 200000;  // with snapshots among them
    measure::print_head("committed writes, three replicas", "ns CPU a write");
    for (const std::size_t bytes : {16u, 128u, 1024u}) {
        for (const std::size_t in_flight : {1u, 64u, 1024u}) {
            compare(bytes, in_flight, count, quick ? 2 : 7);
        }
    }
    measure::print_head("committed writes of 128 bytes, 64 in flight", "ns CPU a write");
    for (const std::uint32_t voters : {1u, 3u, 5u, 7u}) {
        for (const std::uint32_t observers : {0u, 10u, 100u}) {
            if (quick && voters != 3) continue;
            for (const bool feeds : {false, true}) {
                if (feeds && (voters == 1 || observers == 0)) continue;
                grow(voters, observers, feeds, quick ? 1000 : 20000, quick ? 2 : 7);
            }
        }
    }
    measure::print_head("seals", "ns CPU");
    for (const std::size_t bytes : {100u, 1024u, 65536u}) {
        hash(bytes, (quick ? 1000000 : 20000000) / bytes, quick ? 2 : 7);
    }
    for (const std::size_t in_flight : {1u, 64u}) {
        seal(in_flight, quick ? 2000 : 50000, quick ? 2 : 7);
    }
    measure::print_head("recordings", "ns CPU a write");
    for (const std::size_t in_flight : {1u, 64u}) {
        record(in_flight, quick ? 2000 : 20000, quick ? 2 : 7);
    }
    return 0;
}
