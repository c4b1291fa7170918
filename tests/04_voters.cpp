// Chapter 4: the table of voters, in the machine, in its digest and in its snapshots.

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::Machine;
using coord::OpCode;
using coord::PeerId;
using coord::Txn;
using coord::VoterTable;
using coord::Zxid;
using Places = VoterTable::Places;

constexpr PeerId A{1}, B{2}, C{3};
constexpr BytesView config = "/zookeeper/config";

Bytes body_of(const Places& places) {
    Bytes body;
    VoterTable::write(places, body);
    return body;
}

struct Rig {
    struct Watch final : coord::ChangeSink, coord::ChangeRecorder {
        std::vector<Zxid> changes;
        Bytes recorded;
        void on_created(BytesView, Zxid, BytesView) override { FAIL("no node comes"); }
        void on_deleted(BytesView, Zxid, BytesView) override { FAIL("no node goes"); }
        void on_data_changed(BytesView path, Zxid zxid, BytesView) override {
            CHECK(path == config);
            changes.push_back(zxid);
        }
        void on_children_changed(BytesView, Zxid, BytesView) override { FAIL("none comes"); }
        void on_change(coord::EventType type, const coord::NodeView& node, Zxid zxid) override {
            CHECK(type == coord::EventType::data_changed);
            CHECK(node.path == config);
            CHECK(node.stat.mzxid == zxid);
            recorded = Bytes(node.data);
        }
        void hold() override { FAIL("no multi"); }
        void release(bool) override { FAIL("no multi"); }
    } watch;
    Machine machine{coord::Limits{}, 1};
    std::uint64_t counter = 0;

    Errc apply(BytesView body) {
        Txn txn;
        txn.zxid = Zxid{1, ++counter}, txn.op = OpCode::admit, txn.body = body;
        const coord::Outcome* const outcome = machine.apply(txn, watch);
        REQUIRE(outcome != nullptr);
        CHECK(outcome->zxid == txn.zxid);
        machine.audit();
        return outcome->error;
    }
    Errc admit(const Places& places) { return apply(body_of(places)); }
    const VoterTable& table() const { return machine.voters(); }
    Bytes text() const { return Bytes(machine.tree().find(config)->data); }
    coord::Stat stat() const { return machine.tree().find(config)->stat; }
};

}  // namespace

TEST_SUITE("04 machine") {

TEST_CASE("M5 voters found, are replaced, and are taken out; the founding is complete when said") {
    Rig rig;
    CHECK_FALSE(rig.table().is_founding());
    CHECK_FALSE(rig.table().knows(A));
    REQUIRE(rig.admit({{A, 11}, {B, 12}}) == Errc::ok);
    CHECK(rig.table().is_founding());
    CHECK(rig.table().storage_of(A) == 11);
    CHECK(rig.table().storage_of(B) == 12);
    CHECK(rig.table().storage_of(C) == 0);
    REQUIRE(rig.admit({{B, 22}}) == Errc::ok);
    CHECK(rig.table().is_founding());
    REQUIRE(rig.admit({}) == Errc::ok);
    CHECK_FALSE(rig.table().is_founding());
    REQUIRE(rig.admit({{B, 0}}) == Errc::ok);
    CHECK(rig.table().knows(B));
    CHECK(rig.table().storage_of(B) == 0);
    REQUIRE(rig.admit({{B, 23}}) == Errc::ok);
    CHECK_FALSE(rig.table().is_founding());  // it was there
    REQUIRE(rig.admit({{C, 13}}) == Errc::ok);
    CHECK(rig.table().is_founding());
    CHECK_FALSE(rig.table().places()[0].is_founding);
}

TEST_CASE("M5 what is not the body of an admit changes nothing, and has a zxid all the same") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}}) == Errc::ok);
    const std::uint64_t digest = rig.machine.digest();
    const Bytes whole = body_of({{A, 99}, {B, 12}});
    for (std::size_t size = 0; size < whole.size(); size++) {
        CHECK(rig.apply(BytesView(whole).substr(0, size)) == Errc::marshalling_error);
    }
    CHECK(rig.apply(whole + "x") == Errc::marshalling_error);
    CHECK(rig.apply(Bytes(4, '\xff')) == Errc::marshalling_error);
    Places many;
    for (std::uint32_t i = 1; i <= 1025; i++) many.push_back({PeerId{i}, i});
    CHECK(rig.admit(many) == Errc::marshalling_error);
    CHECK(rig.machine.digest() == digest);
    CHECK(rig.machine.applied() == Zxid{1, rig.counter});
}

TEST_CASE("M5 the table is part of the digest: voter, storage and founding") {
    std::vector<std::uint64_t> digests;
    for (const Places& places : {Places{{A, 1}}, Places{{A, 2}}, Places{{B, 1}}, Places{{A, 0}},
                                 Places{{A, 1}, {B, 2}}, Places{{A, 2}, {B, 1}}}) {
        for (const bool is_complete : {false, true}) {
            Rig rig;
            REQUIRE(rig.admit(places) == Errc::ok);
            if (is_complete) REQUIRE(rig.admit({}) == Errc::ok);
            digests.push_back(rig.machine.digest());
        }
    }
    std::sort(digests.begin(), digests.end());
    CHECK(std::adjacent_find(digests.begin(), digests.end()) == digests.end());
}

TEST_CASE("M5 the table goes into a snapshot and comes back") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}, {B, UINT64_MAX}}) == Errc::ok);
    REQUIRE(rig.admit({}) == Errc::ok);
    REQUIRE(rig.admit({{C, 13}}) == Errc::ok);
    const Bytes state = support::save(rig.machine);
    coord::StateCheck check{coord::Limits{}};
    check.feed(state);
    CHECK(check.is_sound(rig.machine.applied()));
    Machine other(coord::Limits{}, 2);
    REQUIRE(other.load(state) == Errc::ok);
    other.audit();
    CHECK(other.digest() == rig.machine.digest());
    CHECK(other.voters().storage_of(B) == UINT64_MAX);
    CHECK(other.voters().places()[2].is_founding);
    CHECK_FALSE(other.voters().places()[0].is_founding);
    REQUIRE(rig.admit({{A, 12}}) == Errc::ok);
    REQUIRE(other.load(support::save(rig.machine)) == Errc::ok);  // nothing of the old one stays
    CHECK(other.voters().storage_of(A) == 12);
    const std::size_t version = state.find("coordst") + 7;
    for (std::size_t i = 0; i < state.size(); i++) {
        Bytes bad = state;
        bad[i] = static_cast<char>(bad[i] ^ 1);
        CHECK(other.load(bad) == (i == version ? Errc::other_version : Errc::corrupt));
        CHECK(other.voters().places().empty());
    }
}

TEST_CASE("M5 a save that goes on while the table changes has the table of its beginning") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}}) == Errc::ok);
    const std::uint64_t digest = rig.machine.digest();
    rig.machine.begin_save();
    REQUIRE(rig.admit({{A, 12}}) == Errc::ok);
    Bytes state;
    while (!rig.machine.save_slice(16, state)) {
    }
    Machine other(coord::Limits{}, 2);
    REQUIRE(other.load(state) == Errc::ok);
    CHECK(other.voters().storage_of(A) == 11);
    CHECK(other.digest() == digest);
}

TEST_CASE("M16 the config says who votes, as of when that was decided, and tells who watches it") {
    Rig rig;
    rig.machine.record_to(&rig.watch);
    CHECK(rig.text().empty());
    REQUIRE(rig.admit({{B, 12}, {A, 11}}) == Errc::ok);
    const Bytes two = "server.1=participant\nserver.2=participant\nversion=10000000001";
    CHECK(rig.text() == two);
    CHECK(rig.watch.recorded == two);
    CHECK(rig.stat().mzxid == Zxid{1, 1});
    CHECK(rig.stat().version == 1);
    CHECK(rig.stat().czxid == Zxid{});
    CHECK(rig.watch.changes == std::vector<Zxid>{Zxid{1, 1}});
    // Neither the end of the founding nor another storage changes who votes; nor does nonsense.
    REQUIRE(rig.admit({}) == Errc::ok);
    REQUIRE(rig.admit({{B, 22}}) == Errc::ok);
    REQUIRE(rig.admit({{B, 0}}) == Errc::ok);
    REQUIRE(rig.apply("nonsense") == Errc::marshalling_error);
    CHECK(rig.text() == two);
    CHECK(rig.watch.changes.size() == 1);
    REQUIRE(rig.admit({{PeerId{UINT32_MAX}, 13}}) == Errc::ok);
    CHECK(rig.text() == "server.1=participant\nserver.2=participant\n"
                        "server.4294967295=participant\nversion=10000000006");
    CHECK(rig.watch.changes == std::vector<Zxid>{Zxid{1, 1}, Zxid{1, 6}});
    CHECK(rig.stat().version == 2);
}

TEST_CASE("M16 a state whose config is not what its table says is damaged") {
    Rig rig, other;
    REQUIRE(rig.admit({{A, 11}}) == Errc::ok);
    REQUIRE(other.admit({{B, 11}}) == Errc::ok);
    const Bytes good = support::save(rig.machine);
    const Bytes line = "server.1=", bad_line = "server.2=";
    Bytes bad = good;
    REQUIRE(bad.find(line) != Bytes::npos);
    bad.replace(bad.find(line), line.size(), bad_line);
    // With its digest and its checksum put right.
    coord::Tree node;
    REQUIRE(node.set(config, other.text(), coord::any_version, Zxid{1, 1}, 0) == Errc::ok);
    coord::Tree was;
    REQUIRE(was.set(config, rig.text(), coord::any_version, Zxid{1, 1}, 0) == Errc::ok);
    const std::uint64_t digest = rig.machine.digest() - was.digest() + node.digest();
    Bytes digest_bytes;
    coord::Writer(digest_bytes).u64(digest);
    bad.replace(5 + 16, 8, digest_bytes);
    Bytes crc_bytes;
    coord::Writer(crc_bytes).u32(coord::crc32c(BytesView(bad).substr(0, bad.size() - 4)));
    bad.replace(bad.size() - 4, 4, crc_bytes);
    coord::StateCheck check{coord::Limits{}};
    check.feed(bad);
    CHECK(check.is_sound(rig.machine.applied()));  // it is a state, and not one of this machine's
    Machine loaded(coord::Limits{}, 2);
    CHECK(loaded.load(bad) == Errc::corrupt);
    CHECK(loaded.load(good) == Errc::ok);
}

TEST_CASE("M16 a config that is over the limit of data is empty, and the state can be loaded") {
    Rig rig;
    coord::Limits limits;
    limits.data_bytes_max = 30;
    Machine narrow(limits, 1);
    Txn txn;
    const Bytes body = body_of({{A, 11}, {B, 12}});
    txn.zxid = Zxid{1, 1}, txn.op = OpCode::admit, txn.body = body;
    REQUIRE(narrow.apply(txn, rig.watch)->error == Errc::ok);
    CHECK(narrow.tree().find(config)->data.empty());
    narrow.audit();
    Machine other(limits, 2);
    CHECK(other.load(support::save(narrow)) == Errc::ok);
}

namespace {

coord::Member member(std::uint32_t id, bool votes = true, const Bytes& address = {}) {
    coord::Member all;
    all.id = PeerId{id}, all.votes = votes, all.address = address;
    return all;
}

Bytes joint_body(const VoterTable::Members& members, const Places& storages = {}) {
    Bytes body;
    VoterTable::write(coord::ReconfigStep::joint, members, storages, body);
    return body;
}

Errc reconfig(Rig& rig, BytesView body) {
    Txn txn;
    txn.zxid = Zxid{1, ++rig.counter}, txn.op = OpCode::reconfig, txn.body = body;
    const coord::Outcome* const outcome = rig.machine.apply(txn, rig.watch);
    REQUIRE(outcome != nullptr);
    rig.machine.audit();
    return outcome->error;
}

const Bytes settled(1, '\3');

}  // namespace

TEST_CASE("M18 first both sets are in the table, then the next one alone") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}, {B, 12}}) == Errc::ok);  // of two the founding is never complete
    const Bytes two = rig.text();
    CHECK(reconfig(rig, settled) == Errc::marshalling_error);  // nothing is under way
    const Bytes body = joint_body({member(2), member(3), member(4, false)}, {{C, 13}, {A, 99}});
    REQUIRE(reconfig(rig, body) == Errc::ok);
    CHECK(rig.table().is_joint());
    CHECK_FALSE(rig.table().is_founding());
    CHECK(rig.table().changed() == Zxid{1, 3});
    CHECK(rig.table().version() == Zxid{1, 1});
    CHECK(rig.table().storage_of(A) == 11);  // it had one
    CHECK(rig.table().storage_of(C) == 13);
    CHECK(rig.text() == two);
    CHECK(rig.watch.changes.size() == 1);
    CHECK(reconfig(rig, body) == Errc::marshalling_error);  // one at a time
    CHECK(rig.admit({{PeerId{9}, 1}}) == Errc::marshalling_error);  // nobody founds meanwhile
    REQUIRE(rig.admit({{B, 22}}) == Errc::ok);                      // but a storage may change
    REQUIRE(reconfig(rig, settled) == Errc::ok);
    CHECK_FALSE(rig.table().is_joint());
    CHECK_FALSE(rig.table().knows(A));
    CHECK(rig.table().storage_of(B) == 22);
    CHECK(rig.table().version() == Zxid{1, 7});
    CHECK(rig.text() == "server.2=participant\nserver.3=participant\nserver.4=observer\n"
                        "version=10000000007");
    CHECK(rig.watch.changes == std::vector<Zxid>{Zxid{1, 1}, Zxid{1, 7}});
}

TEST_CASE("M18 golden: the bytes of each step") {
    coord::Member far = member(3, true, "a:1");
    far.weight = 2, far.group = 7;
    CHECK(support::hex(joint_body({member(2, false), far}, {{C, 13}})) ==
          "02" "00000002" "00000002" "00" "00000001" "00000000" "00000000"
          "00000003" "01" "00000002" "00000007" "00000003" "613a31"
          "00000001" "00000003" "000000000000000d");
    coord::Reconfig asked;
    asked.joining.push_back(far), asked.leaving.emplace_back(9u), asked.version = Zxid{5};
    Bytes body;
    coord::encode_reconfig(asked, body);
    CHECK(support::hex(body) == "00" "0000000000000005" "00000001" "00000003" "01" "00000002"
                                "00000007" "00000003" "613a31" "00000001" "00000009" "00000000");
    CHECK(coord::judge_request(OpCode::reconfig, body, coord::Limits{}) == Errc::ok);
    for (std::size_t size = 0; size < body.size(); size++) {
        CHECK(coord::judge_request(OpCode::reconfig, body.substr(0, size), coord::Limits{}) ==
              Errc::marshalling_error);
    }
    CHECK(coord::judge_request(OpCode::reconfig, settled, coord::Limits{}) ==
          Errc::marshalling_error);
}

TEST_CASE("M18 what is no step, or says what cannot be, changes nothing") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}, {B, 12}, {C, 13}}) == Errc::ok);
    REQUIRE(rig.admit({}) == Errc::ok);
    const std::uint64_t digest = rig.machine.digest();
    const Bytes whole = joint_body({member(1), member(4)}, {{PeerId{4}, 14}});
    for (std::size_t size = 0; size < whole.size(); size++) {
        CHECK(reconfig(rig, BytesView(whole).substr(0, size)) == Errc::marshalling_error);
    }
    CHECK(reconfig(rig, whole + "x") == Errc::marshalling_error);
    for (const VoterTable::Members& none :
         {VoterTable::Members{}, VoterTable::Members{member(0)},
          VoterTable::Members{member(2), member(1)}, VoterTable::Members{member(1), member(1)},
          VoterTable::Members{member(1, false)}, VoterTable::Members{member(1, true, "a b")},
          VoterTable::Members{member(1, true, Bytes(257, 'x'))}}) {
        CHECK(reconfig(rig, joint_body(none)) == Errc::marshalling_error);
    }
    VoterTable::Members heavy{member(1)};
    heavy[0].weight = 65536;
    CHECK(reconfig(rig, joint_body(heavy)) == Errc::marshalling_error);
    heavy[0].weight = 0;
    CHECK(reconfig(rig, joint_body(heavy)) == Errc::marshalling_error);
    VoterTable::Members many;  // with the three there are 64 of them
    for (std::uint32_t id = 4; id <= 64; id++) many.push_back(member(id));
    CHECK(reconfig(rig, joint_body(many)) == Errc::marshalling_error);
    Bytes refusal(1, '\4');
    coord::Writer(refusal).i32(static_cast<std::int32_t>(Errc::bad_version));
    CHECK(reconfig(rig, refusal) == Errc::bad_version);
    CHECK(rig.machine.digest() == digest);
    many.pop_back();
    CHECK(reconfig(rig, joint_body(many)) == Errc::ok);
}

TEST_CASE("M18 a change says nothing of the storage of who votes already") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}, {B, 12}}) == Errc::ok);
    REQUIRE(reconfig(rig, joint_body({member(2), member(3)}, {{B, 99}, {C, 13}})) == Errc::ok);
    CHECK(rig.table().storage_of(B) == 12);
    CHECK(rig.table().storage_of(C) == 13);
}

TEST_CASE("M18 two that differ in who the next members are have other digests") {
    const auto digest_with = [](const coord::Member& next) {
        Rig rig;
        REQUIRE(rig.admit({{A, 11}, {B, 12}}) == Errc::ok);
        REQUIRE(reconfig(rig, joint_body({member(2), next}, {{C, 13}})) == Errc::ok);
        return rig.table().digest();
    };
    const std::uint64_t digest = digest_with(member(3, true, "c:1"));
    CHECK(digest_with(member(3, true, "c:1")) == digest);
    CHECK(digest_with(member(3, true, "c:2")) != digest);
    coord::Member heavy = member(3, true, "c:1");
    heavy.weight = 2;
    CHECK(digest_with(heavy) != digest);
}

TEST_CASE("M18 a snapshot has both sets; they are part of the digest, each byte of them") {
    Rig rig;
    REQUIRE(rig.admit({{A, 11}, {B, 12}}) == Errc::ok);
    const Bytes body = joint_body({member(2), member(3, true, "c:1")}, {{C, 13}});
    REQUIRE(reconfig(rig, body) == Errc::ok);
    const Bytes state = support::save(rig.machine);
    Machine other(coord::Limits{}, 2);
    REQUIRE(other.load(state) == Errc::ok);
    other.audit();
    CHECK(other.digest() == rig.machine.digest());
    CHECK(other.voters().is_joint());
    CHECK(other.voters().next().size() == 2);
    CHECK(other.voters().next()[1].address == "c:1");
    CHECK(other.voters().changed() == Zxid{1, 2});
    const std::size_t version = state.find("coordst") + 7;
    for (std::size_t i = 0; i < state.size(); i++) {
        Bytes bad = state;
        bad[i] = static_cast<char>(bad[i] ^ 1);
        CHECK(other.load(bad) == (i == version ? Errc::other_version : Errc::corrupt));
    }
    // Both go on from it alike.
    REQUIRE(other.load(state) == Errc::ok);
    Txn txn;
    txn.zxid = Zxid{1, 3}, txn.op = OpCode::reconfig, txn.body = settled;
    REQUIRE(other.apply(txn, rig.watch)->error == Errc::ok);
    REQUIRE(reconfig(rig, settled) == Errc::ok);
    CHECK(other.digest() == rig.machine.digest());
}

}  // TEST_SUITE
