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
    for (std::size_t i = 0; i < state.size(); i++) {
        Bytes bad = state;
        bad[i] = static_cast<char>(bad[i] ^ 1);
        CHECK(other.load(bad) == Errc::corrupt);
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

}  // TEST_SUITE
