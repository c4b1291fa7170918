// Fuzz target: bytes that claim to be a state. Loaded in pieces of any size they are a state or
// corrupt, alike in all pieces; one that loads is sound in every way that audit knows, saves to the
// same records, and goes on; one that does not leaves a fresh machine. How to run it: fuzz.hpp.
//
// ctest: --runs=60000
//
// Input: u8 flags, u8 chance of the pieces, then the state. Flags: 1 = the counts and the digest
// are put right first, 2 = the checksum at the end is, 4 = the limits are large.
#include "fuzz.hpp"

#include <algorithm>

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::body_of;
using fuzz::Errc;
using fuzz::multi_of;
using fuzz::Nobody;
using fuzz::Writer;

enum Kind : std::uint8_t { end = 0, head = 1, session = 2, node = 3 };  // FORMAT
constexpr std::size_t record_header_bytes = 5;                          // FORMAT

struct Record {
    std::uint8_t kind = 0;
    std::size_t at = 0;    // of its body
    std::size_t size = 0;
};

coord::Limits limits_of(bool are_large) {
    coord::Limits limits;
    if (are_large) return limits;
    limits.path_bytes_max = 64, limits.data_bytes_max = 128, limits.nodes_max = 24;
    limits.sessions_max = 3, limits.requests_per_session_max = 4;
    return limits;
}

std::vector<Record> records_of(BytesView bytes) {
    std::vector<Record> out;
    std::size_t at = 0;
    while (bytes.size() - at >= record_header_bytes) {
        const std::size_t size = fuzz::u32_at(bytes, at + 1);
        Record record{static_cast<std::uint8_t>(bytes[at]), at + record_header_bytes, size};
        if (size > bytes.size() - record.at) break;
        out.push_back(record);
        at = record.at + size;
    }
    return out;
}

std::uint64_t digest_of_session(BytesView record) {  // FORMAT
    coord::Reader in(record);
    const std::uint64_t id = in.u64(), nonce = in.u64(), timeout = in.u32();
    const std::uint64_t silent = in.u32(), high = in.u64(), low = in.u64(), holder = in.u64();
    const std::uint64_t cxid = in.u64(), confirmed = in.u64();
    const BytesView identities = in.bytes(SIZE_MAX);
    const std::uint64_t who = identities.empty() ? 0 : coord::hash64(identities, 0x61636c) | 1;
    const std::uint64_t opened = coord::mix64(coord::mix64(id, nonce), silent << 32 | timeout);
    const std::uint64_t held = coord::mix64(coord::mix64(high, low), holder) + who;
    return coord::mix64(coord::mix64(opened, held), coord::mix64(cxid + 1, confirmed + 1));
}

void put_right(Bytes& bytes, const coord::Limits& limits) {
    std::uint64_t digest = 0;
    std::uint32_t sessions = 0, nodes = 0;
    const std::vector<Record> records = records_of(bytes);
    for (const Record& record : records) {
        const BytesView body = BytesView(bytes).substr(record.at, record.size);
        std::uint64_t one = 0;
        if (record.kind == session) one = digest_of_session(body), sessions += 1;
        if (record.kind == node) nodes += 1;
        if (record.kind == node && !coord::Tree::digest_of_record(body, limits, one)) return;
        digest += one;
    }
    for (const Record& record : records) {
        if (record.kind == head && record.size >= 24) fuzz::put_u64(bytes, record.at + 16, digest);
        if (record.kind != end || record.size < 8) continue;
        fuzz::put_u32(bytes, record.at, sessions);
        fuzz::put_u32(bytes, record.at + 4, nodes);
    }
}

void put_checksum(Bytes& bytes) {
    for (const Record& record : records_of(bytes)) {
        if (record.kind != end || record.size < 12) continue;
        const std::size_t at = record.at + record.size - 4;
        fuzz::put_u32(bytes, at, coord::crc32c(BytesView(bytes).substr(0, at)));
    }
}

Bytes save(coord::Machine& machine) {
    Bytes out;
    machine.begin_save();
    while (!machine.save_slice(1000, out)) {
    }
    return out;
}

// The records of a state in the order of their bytes, without the checksum, which depends on it.
std::vector<Bytes> sorted(BytesView bytes) {
    std::vector<Bytes> out;
    for (const Record& record : records_of(bytes)) {
        const std::size_t size = record.kind == end ? record.size - 4 : record.size;
        out.emplace_back(1, static_cast<char>(record.kind));
        out.back() += bytes.substr(record.at, size);
    }
    std::sort(out.begin(), out.end());
    return out;
}

const coord::Outcome* apply(coord::Machine& machine, std::uint64_t session_id, std::uint64_t cxid,
                            coord::OpCode op, BytesView body, std::int64_t time_ms = 0) {
    Nobody nobody;
    coord::Txn txn;
    txn.time_ms = time_ms;
    txn.previous = machine.applied();
    txn.zxid = coord::Zxid{machine.applied().value + 1};
    txn.session = coord::SessionId{session_id}, txn.cxid = cxid;
    txn.op = op, txn.body = body;
    return machine.apply(txn, nobody);
}

Bytes opening(std::uint64_t nonce) {
    Bytes body;
    Writer writer(body);
    writer.u64(nonce), writer.u32(10000), writer.u64(3), writer.u64(4);
    return body;
}

// A few of those that go by themselves, at times that a clock may have: what is due goes.
void reap_some(coord::Machine& machine) {
    for (const std::int64_t time_ms : {INT64_MIN, std::int64_t{0}, INT64_MAX}) {
        std::uint64_t place = 0;
        std::uint32_t looks = 3;
        const std::optional<coord::NodeView> due = machine.tree().next_due(place, looks, time_ms);
        if (!due) continue;
        const Bytes path(due->path);
        Bytes body;
        Writer writer(body);
        writer.bytes(path), writer.zxid(due->stat.czxid);
        const coord::Outcome* const outcome =
            apply(machine, 0, 0, coord::OpCode::reap, body, time_ms);
        fuzz::expect(outcome->error == Errc::ok, "what is due goes");
        fuzz::expect(!machine.tree().contains(path), "and is gone");
        machine.audit();
    }
}

// A few transactions on whatever state it is: nothing trips, and the audit holds.
void go_on(coord::Machine& machine) {
    if (machine.applied().counter() > coord::Zxid::counter_max - 20) return;
    reap_some(machine);
    apply(machine, 0, 0, coord::OpCode::open_session, opening(0x5eed));
    std::vector<std::pair<std::uint64_t, std::uint64_t>> sessions;
    for (const auto& [id, record] : machine.sessions()) sessions.push_back({id.value, record.cxid});
    for (const auto& [id, cxid] : sessions) {
        if (cxid > UINT64_MAX - 8) continue;
        apply(machine, id, cxid + 1, coord::OpCode::create, body_of("/new", "data", 1));
        apply(machine, id, cxid + 2, coord::OpCode::set, body_of("/a", "more", -1));
        apply(machine, id, cxid + 3, coord::OpCode::remove, body_of("/a/b", "-", -1));
        machine.audit();
        const std::uint64_t before = machine.tree().digest();
        const coord::Outcome* const undone =
            apply(machine, id, cxid + 4, coord::OpCode::multi,
                  multi_of({{coord::OpCode::remove, body_of("/a/b", "-", -1)},
                            {coord::OpCode::set, body_of("/a", "a value", -1)},
                            {coord::OpCode::create, body_of("/a/b", "b", 1)},
                            {coord::OpCode::create, body_of("/s-", "s", 2)},
                            {coord::OpCode::remove, body_of("/t", "-", -1)},
                            {coord::OpCode::create, body_of("/t", "t", 4)},
                            {coord::OpCode::check, body_of("/a", "-", 77)}}));
        const bool is_undone = undone == nullptr || undone->error != Errc::ok;
        fuzz::expect(!is_undone || machine.tree().digest() == before, "a multi is undone");
        machine.audit();
        const Bytes identity = coord::Acl(0, "token", "us").bytes();
        apply(machine, id, cxid + 5, coord::OpCode::auth, identity);
        apply(machine, id, cxid + 6, coord::OpCode::set_acl,
              fuzz::body_of_set_acl("/a", coord::creator_acl(), -1));
        apply(machine, id, cxid + 7, coord::OpCode::close_session, Bytes(1, '\0'));
    }
    machine.audit();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::uint8_t flags = data[0];
    const coord::Limits limits = limits_of((flags & 4) != 0);
    Bytes state(fuzz::view(data, size).substr(2));
    if ((flags & 1) != 0) put_right(state, limits);
    if ((flags & 2) != 0) put_checksum(state);

    coord::Machine machine(limits, 1);
    coord::StateCheck check(limits);
    coord::Rng rng(data[1]);
    machine.begin_load();
    for (BytesView rest = state; !rest.empty();) {
        const BytesView piece = rest.substr(0, 1 + static_cast<std::size_t>(rng.below(200)));
        machine.load_piece(piece);
        check.feed(piece);
        rest.remove_prefix(piece.size());
    }
    const Errc loaded = machine.end_load();
    machine.audit();
    coord::Machine whole(limits, 2);
    fuzz::expect(whole.load(state) == loaded, "pieces and the whole are judged alike");
    fuzz::expect(whole.digest() == machine.digest(), "pieces and the whole give one state");
    if (loaded == Errc::ok) {
        fuzz::expect(check.is_sound(machine.applied()), "what loads is sound to a check");
        fuzz::expect(sorted(save(machine)) == sorted(state), "a state saves to the same records");
    } else {
        fuzz::expect(loaded == Errc::corrupt || loaded == Errc::other_version,
                     "a state loads, or is corrupt or of another version");
        fuzz::expect(machine.digest() == coord::Machine(limits, 3).digest() &&
                         machine.applied() == coord::Zxid{} && machine.sessions().empty(),
                     "a fresh state is left");
    }
    go_on(machine);
    return 0;
}

std::vector<Bytes> fuzz::seeds() {
    coord::Machine machine(limits_of(false), 1);
    std::vector<Bytes> out;
    const auto add = [&](char flags) {
        out.push_back(Bytes(1, flags) + '\7');
        out.back() += save(machine);
    };
    add(3);
    const std::uint64_t one =
        apply(machine, 0, 0, coord::OpCode::open_session, opening(1))->session.value;
    const std::uint64_t two =
        apply(machine, 0, 0, coord::OpCode::open_session, opening(2))->session.value;
    apply(machine, one, 1, coord::OpCode::create, body_of("/a", "data", 0));
    apply(machine, one, 2, coord::OpCode::create, body_of("/a/b", "", 1));
    add(3);
    apply(machine, two, 1, coord::OpCode::create, body_of("/a/s-", "x", 2));
    apply(machine, two, 2, coord::OpCode::create, body_of("/a/s-", "y", 3));
    apply(machine, one, 3, coord::OpCode::remove, body_of("/none", "-", -1));
    apply(machine, one, 4, coord::OpCode::set, body_of("/a", "other", -1));
    add(3), add(7), add(0);
    apply(machine, two, 3, coord::OpCode::multi,
          multi_of({{coord::OpCode::create, body_of("/m", "m", 1)},
                    {coord::OpCode::set, body_of("/m", "n", 0)}}));
    apply(machine, two, 4, coord::OpCode::multi,
          multi_of({{coord::OpCode::remove, body_of("/m", "-", 0)},
                    {coord::OpCode::check, body_of("/none", "-", -1)}}));
    add(3);
    apply(machine, two, 5, coord::OpCode::create, body_of("/c", coord::null_data, 4));
    apply(machine, two, 6, coord::OpCode::create, body_of("/t", "t", 5, 0x123456));
    apply(machine, two, 7, coord::OpCode::create, body_of("/c/", "", 6, coord::ttl_ms_max));
    add(3), add(7), add(0);
    apply(machine, two, 8, coord::OpCode::remove, body_of("/c/0000000000", "-", -1));
    add(3);
    apply(machine, two, 9, coord::OpCode::auth, coord::Acl(0, "token", "two").bytes());
    apply(machine, two, 10, coord::OpCode::create,
          fuzz::body_with_acl("/p", "p", 0, coord::creator_acl()));
    apply(machine, two, 11, coord::OpCode::set_acl,
          fuzz::body_of_set_acl("/a", coord::read_only_acl().add(31, "ip", "::1"), -1));
    add(3), add(7);
    const Bytes quota = "/zookeeper/quota/a";
    apply(machine, two, 12, coord::OpCode::multi,
          multi_of({{coord::OpCode::create, body_of(quota, "", 0)},
                    {coord::OpCode::create, body_of(quota + "/zookeeper_limits", "count=1", 0)},
                    {coord::OpCode::create, body_of(quota + "/zookeeper_stats", "", 0)}}));
    add(3), add(7);
    apply(machine, one, 5, coord::OpCode::close_session, Bytes(1, '\0'));
    add(3);
    return out;
}
