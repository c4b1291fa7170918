// Fuzz target: arbitrary bodies of multis, as a client, a peer or a log may send them. What
// judge_request takes is executed without a marshalling error; one that fails has changed nothing;
// whatever comes, the audit holds, two machines agree, and a save that is under way is of its
// beginning. How to run it: fuzz.hpp.
//
// ctest: --runs=50000
//
// Input: u8 the seed of a save's slices, then bodies: u16 size and so many bytes.
#include "fuzz.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::body_of;
using fuzz::body_of_set_acl;
using fuzz::body_with_acl;
using fuzz::Errc;
using fuzz::multi_of;
using fuzz::Nobody;
using fuzz::Parts;
using fuzz::Writer;

coord::Limits limits() {
    coord::Limits limits;
    limits.path_bytes_max = 60, limits.data_bytes_max = 200, limits.nodes_max = 30;
    limits.multi_parts_max = 12, limits.ephemerals_per_session_max = 6;
    limits.removals_max = 4;
    limits.acl_entries_max = 4, limits.acl_id_bytes_max = 20, limits.acls_max = 6;
    return limits;
}

struct Driven {
    coord::Machine machine;
    std::uint64_t cxids[2] = {0, 0};
    explicit Driven(std::uint64_t seed) : machine(limits(), seed) {
        Bytes body;
        for (const std::uint64_t nonce : {1u, 2u}) {
            body.clear();
            Writer writer(body);
            writer.u64(nonce), writer.u32(10000), writer.u64(3), writer.u64(4);
            apply(0, 0, coord::OpCode::open_session, body);
        }
        const Parts parts{{coord::OpCode::create, body_of("/a", "data", 0)},
                          {coord::OpCode::create, body_of("/a/b", "", 0)},
                          {coord::OpCode::create, body_of("/c", "", 4)},
                          {coord::OpCode::create, body_of("/t", "t", 5, 9)},
                          {coord::OpCode::create, body_of("/e", "e", 1)}};
        multi(0, multi_of(parts));
        multi(1, multi_of({{coord::OpCode::create, body_of("/a/e", "e", 1)}}));
        const Bytes identity = coord::Acl(0, "token", "me").bytes();
        apply(1, ++cxids[0], coord::OpCode::auth, identity);
        multi(0, multi_of({{coord::OpCode::create,
                            body_with_acl("/p", "p", 0, coord::creator_acl())}}));
        const Bytes quota = "/zookeeper/quota/a";
        multi(0, multi_of({{coord::OpCode::create, body_of(quota, "", 0)},
                           {coord::OpCode::create,
                            body_of(quota + "/zookeeper_limits", "countHardLimit=6", 0)},
                           {coord::OpCode::create, body_of(quota + "/zookeeper_stats", "", 0)}}));
    }
    const coord::Outcome* apply(std::uint64_t session, std::uint64_t cxid, coord::OpCode op,
                                BytesView body) {
        Nobody nobody;
        coord::Txn txn;
        txn.previous = machine.applied();
        txn.zxid = coord::Zxid{machine.applied().value + 1};
        txn.session = coord::SessionId{session}, txn.cxid = cxid, txn.confirmed = cxid / 2;
        txn.op = op, txn.body = body;
        return machine.apply(txn, nobody);
    }
    const coord::Outcome* multi(std::size_t session, BytesView body) {
        return apply(session + 1, ++cxids[session], coord::OpCode::multi, body);
    }
};

// The records in the order of their bytes: early ones come first.
std::vector<Bytes> sorted(BytesView state) {
    std::vector<Bytes> records;
    while (state.size() >= 5) {
        const std::size_t size = 5 + std::size_t{fuzz::u32_at(state, 1)};
        const bool is_end = state[0] == 0;  // FORMAT; its checksum is of the order
        records.emplace_back(state.substr(0, is_end ? size - 4 : size));
        state.remove_prefix(size);
    }
    std::sort(records.begin(), records.end());
    return records;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    Driven one(1), two(2);
    coord::Rng rng(data[0]);
    Bytes saved, before;
    one.machine.begin_save();
    two.machine.begin_save();
    while (!two.machine.save_slice(1000, before)) {
    }
    BytesView rest = fuzz::view(data, size).substr(1);
    for (std::size_t i = 0; rest.size() >= 2; i++) {
        const std::size_t length = static_cast<unsigned char>(rest[0]) * std::size_t{256} +
                                   static_cast<unsigned char>(rest[1]);
        const BytesView body = rest.substr(2, length);
        rest.remove_prefix(2 + body.size());
        const Errc judged = coord::judge_request(coord::OpCode::multi, body, limits());
        (void)coord::takes_space(coord::OpCode::multi, body);
        const std::uint64_t digest = one.machine.tree().digest();
        const Errc error = one.multi(i % 2, body)->error;
        const coord::Outcome* const same = two.multi(i % 2, body);
        fuzz::expect(same->error == error, "two machines agree on the outcome");
        fuzz::expect(judged != Errc::ok || error != Errc::marshalling_error, "judged to be sound");
        fuzz::expect(error == Errc::ok || one.machine.tree().digest() == digest, "it is undone");
        fuzz::expect(one.machine.digest() == two.machine.digest(), "and on the state");
        one.machine.audit();
        if (one.machine.is_saving()) one.machine.save_slice(1 + rng.below(300), saved);
    }
    while (one.machine.is_saving()) one.machine.save_slice(1000, saved);
    fuzz::expect(sorted(saved) == sorted(before), "a save is of its beginning");
    coord::Machine loaded(limits(), 3);
    Bytes after;
    one.machine.begin_save();
    while (!one.machine.save_slice(1000, after)) {
    }
    fuzz::expect(loaded.load(after) == Errc::ok, "what it has become can be loaded");
    fuzz::expect(loaded.digest() == one.machine.digest(), "and is the same");
    return 0;
}

namespace {

// What stands before the body of a create, or behind a path.
Bytes numbers(std::initializer_list<std::uint64_t> values) {
    Bytes bytes;
    for (const std::uint64_t value : values) Writer(bytes).u64(value);
    return bytes;
}
Bytes path_and(BytesView path, BytesView rest) {
    Bytes bytes;
    Writer(bytes).bytes(path), Writer(bytes).raw(rest);
    return bytes;
}

}  // namespace

std::vector<Bytes> fuzz::seeds() {
    using coord::OpCode;
    const Bytes number = numbers({1});
    const Bytes limits_of_a = "/zookeeper/quota/a/zookeeper_limits";
    const Bytes stats_of_a = "/zookeeper/quota/a/zookeeper_stats";
    const Parts all[] = {
        {{OpCode::create, body_of("/n", "new", 0)}, {OpCode::create, body_of("/n/s-", "", 2)}},
        {{OpCode::remove, body_of("/e", "-", -1)}, {OpCode::create, body_of("/e", "mine", 1)}},
        {{OpCode::set, body_of("/a", Bytes(150, 'd'), 0)}, {OpCode::check, body_of("/a", "-", 1)}},
        {{OpCode::remove, body_of("/a/b", "-", 0)}, {OpCode::remove, body_of("/a/e", "-", -1)},
         {OpCode::remove, body_of("/a", "-", -1)}, {OpCode::check, body_of("/none", "-", -1)}},
        {{OpCode::create, body_of("/a/s-", "", 3)}, {OpCode::create, body_of("/a/s-", "", 3)},
         {OpCode::set, body_of("/", "root", -1)}, {OpCode::remove, body_of("/", "-", -1)}},
        {{OpCode::remove, body_of("/c", "-", 0)}, {OpCode::create, body_of("/c", "", 5, 1)},
         {OpCode::remove, body_of("/t", "-", 0)},
         {OpCode::create, body_of("/t", coord::null_data, 4)},
         {OpCode::set, body_of("/a", coord::null_data, -1)},
         {OpCode::create, body_of("/t/", "", 6, coord::ttl_ms_max)},
         {OpCode::check, body_of("/none", "-", -1)}},
        {{OpCode::guard, path_and("/a", numbers({3}))},
         {OpCode::check_that, path_and("/none", "\1")},
         {OpCode::check_that, path_and("/e", "\3" + number)},
         {OpCode::create_or_set, body_of("/a", "other", 0)},
         {OpCode::create_or_set, body_of("/n", coord::null_data, 1)},
         {OpCode::check_that, path_and("/n", "\4" + Bytes(4, '\xff'))}},
        {{OpCode::create_with_parents, "\4" + body_of("/n/m/s-", "deep", 2)},
         {OpCode::create_with_parents, Bytes(1, '\0') + body_of("/a/b/c", "", 5, 7)},
         {OpCode::check_that, path_and("/n", "\5" + number)},
         {OpCode::remove_all, body_of("/n", "-", 0)},
         {OpCode::check_that, path_and("/a", "\2" + numbers({3}))}},
        {{OpCode::take_over, numbers({1, 3, 4}) + body_of("/e", "taken", 1)},
         {OpCode::take_over, numbers({2, 3, 4}) + body_of("/a/e", "taken", 1)},
         {OpCode::remove_all, body_of("/a", "-", -1)},
         {OpCode::remove_all, body_of("/c", "-", -1)}},
        {{OpCode::create, body_with_acl("/p/x", "x", 2, coord::Acl(5, "ip", "10.0.0.0/8"))},
         {OpCode::set_acl, body_of_set_acl("/a", coord::read_only_acl(), 0)},
         {OpCode::set_acl, body_of_set_acl("/a", coord::creator_acl(), 1)},
         {OpCode::set, body_of("/p", "q", -1)}},
        {{OpCode::remove, body_of("/p", "-", -1)},
         {OpCode::create, body_with_acl("/p", "q", 0, coord::Acl(31, "digest", "u:x"))},
         {OpCode::set_acl, body_of_set_acl("/a", coord::Acl(31, "ip", "::1/64"), -1)},
         {OpCode::set_acl, body_of_set_acl("/", coord::open_acl(), -1)},
         {OpCode::check, body_of("/none", "-", -1)}},
        {{OpCode::create, body_of("/a/m", "m", 0)}, {OpCode::create, body_of("/a/n", "n", 1)},
         {OpCode::set, body_of(limits_of_a, "byteHardLimit=9;count=1", -1)},
         {OpCode::set, body_of(stats_of_a, "count=?", -1)},
         {OpCode::remove, body_of("/a/n", "-", -1)}},
        {{OpCode::set, body_of(limits_of_a, "countHardLimit=9223372036854775808", -1)},
         {OpCode::create, body_of("/a/m", Bytes(90, 'm'), 0)},
         {OpCode::create_or_set, body_of(limits_of_a, "bytes==-9,,count=-9223372036854775808", 0)},
         {OpCode::remove_all, body_of("/zookeeper/quota/a", "-", -1)},
         {OpCode::create_with_parents,
          Bytes(1, '\0') + body_of("/zookeeper/quota/a/b/zookeeper_limits", "", 1)},
         {OpCode::check, body_of("/none", "-", -1)}},
    };
    std::vector<Bytes> seeds;
    Bytes whole(1, '\7');
    for (const Parts& parts : all) {
        const Bytes body = multi_of(parts);
        Bytes one;
        one += static_cast<char>(body.size() / 256), one += static_cast<char>(body.size() % 256);
        one += body, whole += one;
        seeds.push_back(Bytes(1, '\1') + one);
    }
    seeds.push_back(whole);
    return seeds;
}
