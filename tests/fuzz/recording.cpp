// Fuzz target: bytes that claim to be the recording of a replica. Whatever they are, they are
// refused or replayed up to what is wrong: the replica that lives them does not trip over it, and
// twice the same comes of them.
// How to run it: fuzz.hpp.
//
// ctest: --runs=30000
//
// Input: u8 flags, then the bytes; flag 1: the checksums of the frames are put right first.
#include "fuzz.hpp"

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::Errc;

constexpr std::size_t head_bytes = 8;  // FORMAT

void put_right(Bytes& bytes) {
    for (std::size_t at = 0; at + head_bytes < bytes.size();) {
        const std::size_t left = bytes.size() - at - head_bytes;
        const std::size_t said = fuzz::u32_at(bytes, at);
        const std::size_t size = said == 0 || said > left ? left : said;
        fuzz::put_u32(bytes, at, static_cast<std::uint32_t>(size));
        fuzz::put_u32(bytes, at + 4, coord::crc32c(BytesView(bytes).substr(at + head_bytes, size)));
        at += head_bytes + size;
    }
}

struct End {
    Errc error = Errc::ok;
    std::uint64_t calls = 0;
    std::uint64_t differs_at = 0;
    Bytes state;
};

End end_of(BytesView bytes) {
    coord::Replay replay(bytes);
    End end;
    end.error = replay.error();
    fuzz::expect(replay.bytes_left() <= bytes.size(), "no more is left than there was");
    if (end.error != Errc::ok) {
        fuzz::expect(!replay.step() && !replay.step_into(), "what is refused has no steps");
        return end;
    }
    while (replay.step()) fuzz::expect(!replay.text().empty(), "each step is told");
    replay.step_into();
    end.calls = replay.calls(), end.differs_at = replay.differs_at();
    end.state = replay.replica().state_json();
    fuzz::expect(end.calls <= bytes.size(), "a call takes a byte");
    return end;
}

// A replica's life, and after that another one.
Bytes alone(std::size_t bytes_max, bool is_second) {
    coord::MemoryStorage disk;
    coord::Recorder recorder(bytes_max);
    coord::ReplicaOptions options;
    options.recorder = &recorder;
    options.snapshot_every_entries = 5, options.log_entries_kept = 1;
    options.change_bytes_kept = 2048;
    coord::Time now;
    for (int life = 0; life < (is_second ? 2 : 1); life++) {
        coord::Replica replica(options, disk);
        coord::Subscription stream;
        replica.open_session({}, [&](coord::Result<coord::SessionId> opened) {
            coord::Session session(replica, *opened);
            stream = session.on_changes("/", {}, [](const coord::Change&) {});
            session.exists("/a", [](const coord::WatchEvent&) {}, nullptr);
            for (int i = 0; i < 4; i++) {
                session.create("/a", "", coord::CreateMode::persistent_sequential, nullptr);
            }
            session.multi({coord::Op::create("/a", "b"), coord::Op::has_data("/a", "b"),
                           coord::Op::create_with_parents("/b/c", "d")},
                          [session](const coord::Multi&) {
                              session.children("/", [](auto) {});
                              session.linearizable().get("/a", [](auto) {});
                              session.remove_all("/b", nullptr);
                          });
            session.add_auth("digest", "a:b", nullptr);
            session.create("/mine", "", coord::CreateMode::ephemeral, {}, coord::creator_acl(),
                           nullptr);
            coord::Session::attach(replica, session.id(), session.password(), [](auto) {});
        });
        replica.at(now + coord::milliseconds(5), [&] { (void)stream.take(1); });
        for (int i = 0; i < 12; i++) {
            now = now + coord::milliseconds(1);
            replica.poll(now);
        }
    }
    Bytes recording;
    recorder.take(recording);
    return recording;
}

void add(std::vector<Bytes>& out, const Bytes& recording) {
    out.push_back('\1' + recording);
    out.push_back('\0' + recording);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    Bytes bytes(fuzz::view(data, size).substr(1));
    if ((data[0] & 1) != 0) put_right(bytes);
    const End one = end_of(bytes), other = end_of(bytes);
    fuzz::expect(one.error == other.error && one.calls == other.calls &&
                     one.differs_at == other.differs_at && one.state == other.state,
                 "a recording is replayed as it was the last time");
    return 0;
}

std::vector<Bytes> fuzz::seeds() {
    std::vector<Bytes> out;
    add(out, alone(8000, false));
    add(out, alone(8000, true));
    add(out, alone(800, true));
    coord::SimulationOptions options;
    options.observers = 1;
    options.recording_bytes = 6000;
    coord::Simulation sim(options);
    sim.run_for(coord::milliseconds(300));
    for (std::uint32_t id = 1; id <= sim.size(); id++) {
        Bytes recording;
        sim.recorder(id).take(recording);
        add(out, recording);
    }
    return out;
}
