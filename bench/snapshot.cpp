// Snapshots of a large tree: the longest poll while one is taken under load, beside the polls of
// the same load without one and beside a copy of the whole in one piece; and a restart from it,
// beside reading its bytes alone.
//
// One replica with a storage in memory, 1,000,000 nodes of 100 bytes, 64 writes in flight. The time
// of a poll is CPU time of the thread: what other programs do meanwhile does not count.
//
// usage: bench_snapshot [--quick]
#include "coord.hpp"
#include "measure.hpp"

#include <memory>

namespace {

// Passes everything on, and knows when a snapshot is being written.
class Watched final : public coord::Storage {
public:
    coord::Errc open(coord::RecoverySink& sink, const coord::StorageOwner& owner) override {
        return inner_.open(sink, owner);
    }
    coord::Errc append(coord::BytesView record) override { return inner_.append(record); }
    coord::Errc begin_snapshot() override {
        is_writing = true;
        return inner_.begin_snapshot();
    }
    coord::Errc write_snapshot(coord::BytesView piece) override {
        bytes_written += piece.size();
        return inner_.write_snapshot(piece);
    }
    coord::Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
        is_writing = false;
        ended += 1;
        return inner_.end_snapshot(first_needed, replaces);
    }
    coord::Errc read_snapshot(coord::Sequence snapshot, std::uint64_t offset, std::size_t size,
                              coord::Bytes& out) override {
        return inner_.read_snapshot(snapshot, offset, size, out);
    }
    coord::Errc flush() override { return inner_.flush(); }
    coord::Sequence appended() const override { return inner_.appended(); }
    coord::Sequence durable() const override { return inner_.durable(); }
    coord::Errc health() const override { return inner_.health(); }
    std::uint64_t id() const override { return inner_.id(); }

    bool is_writing = false;
    int ended = 0;
    std::uint64_t bytes_written = 0;

private:
    coord::MemoryStorage inner_;
};

class Load {
public:
    Load(Watched& disk, const coord::ReplicaOptions& options) : disk_(disk) {
        replica_ = std::make_unique<coord::Replica>(options, disk);
        replica_->open_session({}, [this](coord::Result<coord::SessionId> s) { id_ = s.value(); });
        while (id_ == coord::SessionId{}) poll();
    }

    void fill(std::size_t nodes) {
        for (std::size_t parent = 0; parent < (nodes + 999) / 1000; parent++) {
            submit(coord::Request::Kind::create, "/p" + std::to_string(parent));
            for (std::size_t i = 0; i < 1000; i++) {
                submit(coord::Request::Kind::create, path(parent * 1000 + i));
            }
        }
        drain(0);
    }

    static coord::Bytes path(std::size_t node) {
        return "/p" + std::to_string(node / 1000) + "/node" + std::to_string(node);
    }

    void submit(coord::Request::Kind kind, const coord::Bytes& path) {
        drain(63);
        coord::Request request;
        request.kind = kind;
        request.path = path, request.data = data_;
        request.done = coord::OnStat([this](coord::Result<coord::Stat>) { in_flight_ -= 1; });
        if (kind == coord::Request::Kind::create) {
            request.done = coord::OnCreated([this](coord::Result<coord::Created> created) {
                if (!created) std::abort();
                in_flight_ -= 1;
            });
        }
        in_flight_ += 1;
        replica_->submit(id_, std::move(request));
    }

    // Sets of nodes drawn by chance, until a snapshot has been begun and ended.
    void measure_polls(std::size_t nodes, std::vector<double>& during,
                       std::vector<double>& beside) {
        during_ = &during, beside_ = &beside;
        const int ended = disk_.ended;
        while (disk_.ended == ended) {
            submit(coord::Request::Kind::set, path(static_cast<std::size_t>(rng_.below(nodes))));
        }
        during_ = beside_ = nullptr;
        drain(0);
    }

    coord::ReplicaStatus status() const { return replica_->status(); }

private:
    void drain(std::size_t left) {
        while (in_flight_ > left) poll();
    }
    void poll() {
        now_ = now_ + coord::microseconds(10);
        const bool was_writing = disk_.is_writing;
        const double before = measure::thread_us();
        replica_->poll(now_);
        const double spent = measure::thread_us() - before;
        if (during_ == nullptr) return;
        (was_writing || disk_.is_writing ? during_ : beside_)->push_back(spent);
    }

    Watched& disk_;
    std::unique_ptr<coord::Replica> replica_;
    coord::SessionId id_;
    coord::Time now_;
    coord::Bytes data_ = coord::Bytes(100, 'd');
    coord::Rng rng_{1};
    std::size_t in_flight_ = 0;
    std::vector<double>* during_ = nullptr;
    std::vector<double>* beside_ = nullptr;
};

void print_polls(const char* label, std::vector<double>& polls) {
    std::sort(polls.begin(), polls.end());
    const auto at = [&](double part) {
        return polls[static_cast<std::size_t>(part * static_cast<double>(polls.size() - 1))];
    };
    std::printf("  %-42s %10.1f %10.1f %10.1f %10.1f  (%zu polls)\n", label, at(0.5), at(0.99),
                at(0.999), at(1), polls.size());
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const std::size_t nodes = quick ? 20000 : 1000000;
    coord::ReplicaOptions options;
    options.entropy = 1;
    options.snapshot_every_entries = static_cast<std::uint32_t>(nodes / 2 * 3);  // after the fill
    options.snapshot_every_bytes = UINT64_MAX;
    Watched disk;
    std::uint64_t digest = 0;
    std::vector<double> during, beside;
    {
        Load load(disk, options);
        load.fill(nodes);
        load.measure_polls(nodes, during, beside);
        digest = load.status().digest;
    }
    std::printf("a snapshot of %zu nodes, %.0f MB\n", nodes,
                static_cast<double>(disk.bytes_written) / disk.ended / 1e6);
    std::printf("%-44s %10s %10s %10s %10s  us CPU\n", "one poll", "median", "p99", "p99.9", "max");
    print_polls("while a snapshot is taken", during);
    print_polls("beside", beside);

    measure::Spread restart, order, read_alone, whole;
    for (int i = 0; i < (quick ? 1 : 3); i++) {
        const double start = measure::thread_us();
        {
            coord::Replica again(options, disk);
            coord::Time now;
            while (again.status().digest != digest) {
                again.poll(now = now + coord::milliseconds(1));
                if (now > coord::Time{} + coord::seconds(100)) std::abort();
            }
            restart.add((measure::thread_us() - start) / 1000);
            const double unordered = measure::thread_us();
            again.tree().put_in_order();
            order.add((measure::thread_us() - unordered) / 1000);
            const coord::Log& log = again.log();
            coord::Bytes piece;
            const double read = measure::thread_us();
            for (std::uint64_t at = 0; at < log.snapshot_bytes(); at += 256 * 1024) {
                piece.clear();
                if (log.read_snapshot(at, 256 * 1024, piece) != coord::Errc::ok) std::abort();
                measure::keep(coord::crc32c(piece));
            }
            read_alone.add((measure::thread_us() - read) / 1000);
        }
        coord::Machine machine(options.limits, 1);
        coord::Bytes state;
        {
            coord::Replica last(options, disk);
            if (last.log().read_snapshot(0, SIZE_MAX / 4, state) != coord::Errc::ok) std::abort();
        }
        if (machine.load(state) != coord::Errc::ok) std::abort();
        state.clear();
        const double copy = measure::thread_us();
        machine.begin_save();
        if (!machine.save_slice(SIZE_MAX / 4, state)) std::abort();
        whole.add((measure::thread_us() - copy) / 1000);
    }
    measure::print_head("from the snapshot", "ms CPU");
    measure::print_row("all of it in one piece", whole);
    measure::print_row("restart: the state from its bytes", restart);
    measure::print_row("the order of all children, when it is asked for", order);
    measure::print_row("reading the bytes, and their checksum", read_alone);
    return 0;
}
