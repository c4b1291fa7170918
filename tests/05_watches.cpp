// Chapter 5: which watcher hears of which change, in which order.

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::EventType;
using coord::SessionId;
using coord::WatchEvent;
using coord::WatchKind;
using coord::Zxid;
using Lines = std::vector<std::string>;

const char* word(EventType type) {
    switch (type) {
        case EventType::none: return "none";
        case EventType::created: return "created";
        case EventType::deleted: return "deleted";
        case EventType::data_changed: return "data_changed";
        case EventType::children_changed: return "children_changed";
        case EventType::data_watch_removed: return "data_watch_removed";
        case EventType::child_watch_removed: return "child_watch_removed";
        case EventType::persistent_watch_removed: return "persistent_watch_removed";
    }
    return "?";
}

// Calls each watcher at once and writes down what it was told: "name: event path counter".
struct Sink final : coord::EventSink {
    Lines lines;
    std::vector<SessionId> sessions;
    void on_event(SessionId session, coord::detail::Shared<const coord::Watcher> watcher,
                  EventType type, BytesView path, Zxid zxid, BytesView) override {
        sessions.push_back(session);
        (*watcher)(WatchEvent{type, Bytes(path), zxid});
    }
    coord::Watcher watcher(std::string name) {
        return [this, name = std::move(name)](const WatchEvent& event) {
            lines.push_back(name + ": " + word(event.type) + " " + event.path + " " +
                            std::to_string(event.zxid.value));
        };
    }
    Lines take() { return std::exchange(lines, {}); }
};

// "session path kind watchers" of each row.
Lines rows(const std::vector<coord::WatchRow>& found) {
    constexpr const char* kinds[] = {"data", "children", "persistent", "recursive"};
    Lines lines;
    for (const coord::WatchRow& row : found) {
        lines.push_back(std::to_string(row.session.value) + " " + row.path + " " +
                        kinds[static_cast<std::size_t>(row.kind)] + " " +
                        std::to_string(row.watchers));
    }
    return lines;
}

struct Rig {
    Sink sink;
    coord::Watches watches{sink};
    void add(WatchKind kind, BytesView path, std::uint64_t session, const char* name) {
        watches.add(kind, path, SessionId{session}, sink.watcher(name));
    }
    void data(BytesView path, const char* name, std::uint64_t session = 1) {
        add(WatchKind::data, path, session, name);
    }
    void children(BytesView path, const char* name, std::uint64_t session = 1) {
        add(WatchKind::children, path, session, name);
    }
    void persistent(BytesView path, const char* name, std::uint64_t session = 1) {
        add(WatchKind::persistent, path, session, name);
    }
    void recursive(BytesView path, const char* name, std::uint64_t session = 1) {
        add(WatchKind::recursive, path, session, name);
    }
};

// A tree with plain nodes; each change takes the next zxid.
struct Plant {
    coord::Tree tree;
    std::uint64_t zxid = 0;
    void create(BytesView path) { tree.create(path, "", SessionId{}, Zxid{++zxid}, 0); }
    void set(BytesView path) {
        REQUIRE(tree.set(path, "x", coord::any_version, Zxid{++zxid}, 0) == coord::Errc::ok);
    }
    void remove(BytesView path) {
        REQUIRE(tree.remove(path, coord::any_version, Zxid{++zxid}) == coord::Errc::ok);
    }
};

}  // namespace

TEST_SUITE("05 watches") {

// ZooKeeper's table: one row for each change, one column for each kind of watch.
TEST_CASE("the table: create fires created at the node's data watch, nothing at its children") {
    Rig rig;
    rig.data("/x", "data"), rig.children("/x", "children");
    rig.watches.on_created("/x", Zxid{5}, {});
    CHECK(rig.sink.take() == Lines{"data: created /x 5"});
    CHECK(rig.watches.count() == 1);
}

TEST_CASE("the table: set fires data_changed at the data watch alone") {
    Rig rig;
    rig.data("/x", "data"), rig.children("/x", "children");
    rig.watches.on_data_changed("/x", Zxid{6}, {});
    CHECK(rig.sink.take() == Lines{"data: data_changed /x 6"});
    CHECK(rig.watches.count() == 1);
}

TEST_CASE("the table: delete fires deleted at both kinds, data first") {
    Rig rig;
    rig.children("/x", "children"), rig.data("/x", "data");
    rig.watches.on_deleted("/x", Zxid{7}, {});
    CHECK(rig.sink.take() == Lines{"data: deleted /x 7", "children: deleted /x 7"});
    CHECK(rig.watches.count() == 0);
}

TEST_CASE("the table: a change of children fires at the children watch alone") {
    Rig rig;
    rig.data("/x", "data"), rig.children("/x", "children");
    rig.watches.on_children_changed("/x", Zxid{8}, {});
    CHECK(rig.sink.take() == Lines{"children: children_changed /x 8"});
    CHECK(rig.watches.count(SessionId{1}) == 1);
}

TEST_CASE("nobody else hears: another path, a longer one, a shorter one") {
    Rig rig;
    for (const char* const path : {"/", "/a", "/ab", "/a/b/c", "/A/b", "/a/bb"}) {
        rig.data(path, path), rig.children(path, path);
    }
    rig.watches.on_created("/a/b", Zxid{1}, {});
    rig.watches.on_data_changed("/a/b", Zxid{2}, {});
    rig.watches.on_deleted("/a/b", Zxid{3}, {});
    rig.watches.on_children_changed("/a/b", Zxid{4}, {});
    CHECK(rig.sink.take().empty());
    CHECK(rig.watches.count() == 12);
}

TEST_CASE("W1 a watcher is called once and is then forgotten") {
    Rig rig;
    rig.data("/x", "w");
    rig.watches.on_data_changed("/x", Zxid{1}, {});
    rig.watches.on_data_changed("/x", Zxid{2}, {});
    rig.watches.on_deleted("/x", Zxid{3}, {});
    CHECK(rig.sink.take() == Lines{"w: data_changed /x 1"});
    CHECK(rig.watches.count() == 0);
    CHECK(rig.watches.count(SessionId{1}) == 0);
}

TEST_CASE("W1 a watcher that was added twice is called twice, each once") {
    Rig rig;
    rig.data("/x", "first"), rig.data("/x", "second");
    CHECK(rig.watches.count() == 2);
    rig.watches.on_created("/x", Zxid{1}, {});
    CHECK(rig.sink.take() == Lines{"first: created /x 1", "second: created /x 1"});
    rig.watches.on_deleted("/x", Zxid{2}, {});
    CHECK(rig.sink.take().empty());
}

TEST_CASE("W2 watchers of one path hear in the order in which they were added") {
    Rig rig;
    Lines expected;
    for (int i = 0; i < 50; i++) {
        const std::string name = "w" + std::to_string(i);
        rig.data("/x", name.c_str(), static_cast<std::uint64_t>(1 + i % 7));
        expected.push_back(name + ": deleted /x 9");
    }
    rig.watches.on_deleted("/x", Zxid{9}, {});
    CHECK(rig.sink.take() == expected);
    for (std::size_t i = 0; i < 50; i++) CHECK(rig.sink.sessions[i] == SessionId{1 + i % 7});
}

TEST_CASE("W2 a machine tells of the node before its parent, and in the order of the log") {
    Rig rig;
    coord::Machine machine({}, 1);
    std::uint64_t counter = 0;
    const auto apply = [&](SessionId session, std::uint64_t cxid, coord::OpCode op,
                           const Bytes& body) {
        coord::Txn txn;
        txn.zxid = Zxid{++counter}, txn.session = session, txn.cxid = cxid;
        txn.op = op, txn.body = body;
        REQUIRE(machine.apply(txn, rig.watches) != nullptr);
    };
    Bytes open;
    coord::Writer(open).u64(1), coord::Writer(open).u32(1000);
    coord::Writer(open).u64(0), coord::Writer(open).u64(0);
    apply(SessionId{}, 0, coord::OpCode::open_session, open);
    const auto create = [](BytesView path, coord::CreateMode mode) {
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes(""), out.i32(static_cast<std::int32_t>(mode));
        return body;
    };
    rig.children("/", "root"), rig.data("/p", "p"), rig.data("/p/e", "e");
    rig.children("/p", "list");
    apply(SessionId{1}, 1, coord::OpCode::create, create("/p", coord::CreateMode::persistent));
    CHECK(rig.sink.take() == Lines{"p: created /p 2", "root: children_changed / 2"});
    apply(SessionId{1}, 2, coord::OpCode::create, create("/p/e", coord::CreateMode::ephemeral));
    CHECK(rig.sink.take() == Lines{"e: created /p/e 3", "list: children_changed /p 3"});
    rig.data("/p/e", "e"), rig.children("/p", "list"), rig.children("/p/e", "below");
    apply(SessionId{1}, 0, coord::OpCode::close_session, Bytes(1, '\1'));
    CHECK(rig.sink.take() == Lines{"e: deleted /p/e 4", "below: deleted /p/e 4",
                                   "list: children_changed /p 4"});
    CHECK(rig.watches.count() == 0);
}

TEST_CASE("a persistent watcher hears of every change of its node, and stays") {
    Rig rig;
    rig.persistent("/a", "p");
    for (std::uint64_t z = 1; z <= 2; z++) {
        rig.watches.on_created("/a", Zxid{z * 10}, {});
        rig.watches.on_data_changed("/a", Zxid{z * 10 + 1}, {});
        rig.watches.on_created("/a/b", Zxid{z * 10 + 2}, {});
        rig.watches.on_children_changed("/a", Zxid{z * 10 + 2}, {});
        rig.watches.on_deleted("/a", Zxid{z * 10 + 3}, {});  // once, though it is of both kinds
        rig.watches.on_children_changed("/", Zxid{z * 10 + 3}, {});
    }
    CHECK(rig.sink.take() ==
          Lines{"p: created /a 10", "p: data_changed /a 11", "p: children_changed /a 12",
                "p: deleted /a 13", "p: created /a 20", "p: data_changed /a 21",
                "p: children_changed /a 22", "p: deleted /a 23"});
    CHECK(rig.watches.count() == 1);
}

TEST_CASE("a recursive watcher hears of its node and all below it, of no children, and stays") {
    Rig rig;
    rig.recursive("/a", "r");
    rig.recursive("/", "root");
    rig.recursive("/a/b", "low");
    rig.watches.on_created("/a", Zxid{1}, {});
    rig.watches.on_children_changed("/", Zxid{1}, {});
    rig.watches.on_created("/a/b", Zxid{2}, {});
    rig.watches.on_children_changed("/a", Zxid{2}, {});
    rig.watches.on_data_changed("/a/b/c/d", Zxid{3}, {});
    rig.watches.on_deleted("/ab", Zxid{4}, {});  // beside, though its name begins alike
    rig.watches.on_data_changed("/", Zxid{5}, {});
    rig.watches.on_deleted("/a/b", Zxid{6}, {});
    CHECK(rig.sink.take() ==
          Lines{"r: created /a 1", "root: created /a 1", "low: created /a/b 2",
                "r: created /a/b 2", "root: created /a/b 2", "low: data_changed /a/b/c/d 3",
                "r: data_changed /a/b/c/d 3", "root: data_changed /a/b/c/d 3",
                "root: deleted /ab 4", "root: data_changed / 5", "low: deleted /a/b 6",
                "r: deleted /a/b 6", "root: deleted /a/b 6"});
    CHECK(rig.watches.count() == 3);
}

TEST_CASE("kinds on one path: the one-shot ones, then those that stay, then those above") {
    Rig rig;
    rig.recursive("/", "above"), rig.recursive("/a", "r"), rig.persistent("/a", "p");
    rig.persistent("/a", "p2"), rig.children("/a", "c"), rig.data("/a", "d");
    rig.watches.on_deleted("/a", Zxid{1}, {});
    CHECK(rig.sink.take() == Lines{"d: deleted /a 1", "p: deleted /a 1", "p2: deleted /a 1",
                                   "r: deleted /a 1", "above: deleted /a 1", "c: deleted /a 1"});
    rig.children("/a", "c");
    rig.watches.on_children_changed("/a", Zxid{2}, {});
    CHECK(rig.sink.take() == Lines{"c: children_changed /a 2", "p: children_changed /a 2",
                                   "p2: children_changed /a 2"});
}

TEST_CASE("remove: of one type or of all, one session's, one path's; each is told") {
    using Type = coord::WatcherType;
    const struct {
        Type type;
        Lines told;
    } rows[] = {
        {Type::data, {"d: data_watch_removed /a 9"}},
        {Type::children, {"c: child_watch_removed /a 9"}},
        {Type::persistent,
         {"p: persistent_watch_removed /a 9", "q: persistent_watch_removed /a 9"}},
        {Type::persistent_recursive, {"r: persistent_watch_removed /a 9"}},
        {Type::any,
         {"d: data_watch_removed /a 9", "c: child_watch_removed /a 9",
          "p: persistent_watch_removed /a 9", "q: persistent_watch_removed /a 9",
          "r: persistent_watch_removed /a 9"}},
    };
    for (const auto& row : rows) {
        Rig rig;
        rig.data("/a", "d"), rig.children("/a", "c"), rig.persistent("/a", "p");
        rig.persistent("/a", "theirs", 2), rig.persistent("/a", "q"), rig.recursive("/a", "r");
        rig.data("/b", "other"), rig.recursive("/", "above");
        CHECK(rig.watches.remove(row.type, "/a", SessionId{1}, Zxid{9}) == row.told.size());
        CHECK(rig.sink.take() == row.told);
        CHECK(rig.watches.count() == 8 - row.told.size());
        CHECK(rig.watches.count(SessionId{1}) == 7 - row.told.size());
        CHECK(rig.watches.count(SessionId{2}) == 1);
        CHECK(rig.watches.remove(row.type, "/a", SessionId{1}, Zxid{9}) == 0);
        CHECK(rig.watches.remove(row.type, "/none", SessionId{1}, Zxid{9}) == 0);
        rig.watches.on_created("/a", Zxid{10}, {});
        Lines left;
        if (row.type != Type::data && row.type != Type::any) left.push_back("d: created /a 10");
        if (row.type != Type::persistent && row.type != Type::any) {
            left.push_back("p: created /a 10");
        }
        left.push_back("theirs: created /a 10");
        if (row.type != Type::persistent && row.type != Type::any) {
            left.push_back("q: created /a 10");
        }
        if (row.type < Type::persistent_recursive && row.type != Type::any) {
            left.push_back("r: created /a 10");
        }
        left.push_back("above: created /a 10");
        CHECK(rig.sink.take() == left);
        rig.watches.remove_session(SessionId{1}), rig.watches.remove_session(SessionId{2});
        CHECK(rig.watches.count() == 0);
    }
}

TEST_CASE("catch_up: those that stay hear of one change of each node, and still stay") {
    Plant before, after;
    for (Plant* const each : {&before, &after}) {
        each->create("/same"), each->create("/set"), each->create("/gone");
        each->create("/gone/x"), each->create("/gone/x/y"), each->create("/grown");
    }
    after.set("/set"), after.set("/set");
    after.remove("/gone/x/y"), after.remove("/gone/x"), after.remove("/gone");
    after.create("/grown/1"), after.create("/new"), after.create("/new/z");
    Rig rig;
    rig.recursive("/", "all"), rig.recursive("/gone/x", "low");
    for (const char* const path : {"/same", "/set", "/gone", "/grown", "/new", "/none"}) {
        rig.persistent(path, "p");
    }
    const std::size_t count = rig.watches.count();
    rig.watches.catch_up(before.tree, after.tree, Zxid{99});
    CHECK(rig.sink.take() ==
          Lines{"p: deleted /gone 99", "p: children_changed /grown 99", "p: created /new 99",
                "p: data_changed /set 99", "all: created /grown/1 99", "all: created /new 99",
                "all: created /new/z 99", "all: data_changed /set 99",
                "low: deleted /gone/x/y 99", "all: deleted /gone/x/y 99",
                "low: deleted /gone/x 99", "all: deleted /gone/x 99", "all: deleted /gone 99"});
    CHECK(rig.watches.count() == count);
    rig.watches.catch_up(after.tree, after.tree, Zxid{100});
    CHECK(rig.sink.take().empty());
}

TEST_CASE("catch_up: recursive ones beside and below each other hear of each change once") {
    Plant before, after;
    for (Plant* const each : {&before, &after}) {
        for (const char* const path : {"/a", "/a/b", "/a/b/c", "/a-", "/a-/x", "/z", "/z/y"}) {
            each->create(path);
        }
    }
    for (const char* const path : {"/a", "/a/b", "/a/b/c", "/a-/x", "/z/y"}) after.set(path);
    before.create("/a/b/gone"), before.create("/z/gone");
    Rig rig;
    rig.recursive("/a", "a"), rig.recursive("/a/b", "b"), rig.recursive("/a-", "a-");
    rig.recursive("/z/gone", "gone"), rig.recursive("/none", "none"), rig.recursive("/a", "too", 2);
    rig.watches.catch_up(before.tree, after.tree, Zxid{99});
    CHECK(rig.sink.take() ==
          Lines{"a: data_changed /a 99", "too: data_changed /a 99", "b: data_changed /a/b 99",
                "a: data_changed /a/b 99", "too: data_changed /a/b 99",
                "b: data_changed /a/b/c 99", "a: data_changed /a/b/c 99",
                "too: data_changed /a/b/c 99", "a-: data_changed /a-/x 99",
                "gone: deleted /z/gone 99", "b: deleted /a/b/gone 99",
                "a: deleted /a/b/gone 99", "too: deleted /a/b/gone 99"});
}

// So often that a walk through the whole trees each time would not end.
TEST_CASE("catch_up: what nobody watches costs nothing") {
    Plant plant;
    plant.create("/large"), plant.create("/small");
    for (int i = 0; i < 20000; i++) plant.create("/large/" + std::to_string(i));
    Rig rig;
    rig.recursive("/small", "w");
    for (int i = 0; i < 10000; i++) rig.watches.catch_up(plant.tree, plant.tree, Zxid{99});
    CHECK(rig.sink.take().empty());
}

TEST_CASE("a watcher that stays is one and the same at each event, and not a copy") {
    Rig rig;
    std::vector<int> counted;
    const auto copied = std::make_shared<int>(0);
    rig.watches.add(WatchKind::persistent, "/a", SessionId{1},
                    [&counted, copied, calls = 0](const WatchEvent&) mutable {
                        counted.push_back(++calls);
                    });
    for (std::uint64_t z = 1; z <= 3; z++) rig.watches.on_data_changed("/a", Zxid{z}, {});
    CHECK(rig.watches.remove(coord::WatcherType::any, "/a", SessionId{1}, Zxid{4}) == 1);
    CHECK(counted == std::vector<int>{1, 2, 3, 4});
    CHECK(copied.use_count() == 1);
}

// So many that a search through all of them for each would not end.
TEST_CASE("what is removed, and whose session ends, is found among many") {
    constexpr std::uint64_t sessions = 4000, each = 50;
    Rig rig;
    for (std::uint64_t i = 0; i < each; i++) {
        const std::string path = "/" + std::to_string(i % 25);
        const WatchKind kind = static_cast<WatchKind>(i % 4);
        for (std::uint64_t s = 1; s <= sessions; s++) {
            rig.watches.add(kind, path, SessionId{s}, [](const WatchEvent&) {});
        }
    }
    for (std::uint64_t s = 1; s <= sessions; s += 2) rig.watches.remove_session(SessionId{s});
    CHECK(rig.watches.count() == sessions / 2 * each);
    for (std::uint64_t s = 2; s <= sessions; s += 2) {
        REQUIRE(rig.watches.remove(coord::WatcherType::any, "/3", SessionId{s}, Zxid{9}) == 2);
    }
    CHECK(rig.watches.count() == sessions / 2 * (each - 2));
    CHECK(rig.watches.count(SessionId{2}) == each - 2);
    CHECK(rig.watches.count(SessionId{1}) == 0);
    CHECK(rig.sink.sessions.size() == sessions);
    for (std::uint64_t i = 0; i < 65536; i++) rig.persistent("/one", "", 1);
    CHECK(rig.watches.remove(coord::WatcherType::any, "/one", SessionId{1}, Zxid{9}) == 65536);
}

TEST_CASE("what a watcher holds may call on, as it is destroyed with its session") {
    struct Holder {
        Rig& rig;
        std::string path;
        ~Holder() {
            rig.watches.remove(coord::WatcherType::any, path, SessionId{1}, Zxid{9});
            rig.watches.remove(coord::WatcherType::any, path, SessionId{2}, Zxid{9});
            rig.data(path + "/more", "more", 3);
        }
    };
    Rig rig;
    for (int i = 0; i < 20; i++) {
        const std::shared_ptr<Holder> holder(new Holder{rig, "/a" + std::to_string(i / 4)});
        rig.watches.add(WatchKind::data, holder->path, SessionId{1},
                        [holder](const WatchEvent&) {});
        rig.data(holder->path, "theirs", 2);
    }
    rig.watches.remove_session(SessionId{1});
    CHECK(rig.watches.count(SessionId{1}) == 0);
    CHECK(rig.watches.count(SessionId{2}) == 0);
    CHECK(rig.watches.count(SessionId{3}) == 20);
    CHECK(rig.watches.count() == 20);
}

TEST_CASE("counts: of all, and of each session") {
    Rig rig;
    CHECK(rig.watches.count() == 0);
    rig.data("/a", "", 1), rig.data("/b", "", 1), rig.children("/a", "", 2);
    CHECK(rig.watches.count() == 3);
    CHECK(rig.watches.count(SessionId{1}) == 2);
    CHECK(rig.watches.count(SessionId{2}) == 1);
    CHECK(rig.watches.count(SessionId{3}) == 0);
    rig.watches.on_deleted("/a", Zxid{1}, {});
    CHECK(rig.watches.count() == 1);
    CHECK(rig.watches.count(SessionId{1}) == 1);
    CHECK(rig.watches.count(SessionId{2}) == 0);
}

TEST_CASE("a session that goes takes its watchers along, and nobody else's") {
    Rig rig;
    rig.data("/a", "one", 1), rig.data("/a", "two", 2), rig.children("/a", "one", 1);
    rig.data("/b", "one", 1), rig.children("/c", "two", 2);
    rig.watches.remove_session(SessionId{1});
    CHECK(rig.watches.count() == 2);
    CHECK(rig.watches.count(SessionId{1}) == 0);
    rig.watches.remove_session(SessionId{1});
    rig.watches.remove_session(SessionId{77});
    CHECK(rig.watches.count() == 2);
    for (const char* const path : {"/a", "/b", "/c"}) rig.watches.on_deleted(path, Zxid{1}, {});
    CHECK(rig.sink.take() == Lines{"two: deleted /a 1", "two: deleted /c 1"});
}

TEST_CASE("an event of nothing that is watched does nothing") {
    Rig rig;
    rig.watches.on_created("/a", Zxid{1}, {});
    rig.watches.on_deleted("/a", Zxid{1}, {});
    rig.watches.on_data_changed("/a", Zxid{1}, {});
    rig.watches.on_children_changed("/a", Zxid{1}, {});
    CHECK(rig.sink.take().empty());
}

TEST_CASE("the zxid told is the change's, with its epoch") {
    Rig rig;
    rig.data("/a", "w");
    rig.watches.on_created("/a", Zxid{3, 7}, {});
    CHECK(rig.sink.take() == Lines{"w: created /a " + std::to_string(Zxid(3, 7).value)});
}

TEST_CASE("many paths: each watcher hears of its own, whatever shares its bucket") {
    Rig rig;
    for (int i = 0; i < 3000; i++) {
        const std::string path = "/n" + std::to_string(i);
        rig.data(path, path.c_str());
    }
    for (int i = 2999; i >= 0; i--) {
        const std::string path = "/n" + std::to_string(i);
        rig.watches.on_data_changed(path, Zxid{1}, {});
        REQUIRE(rig.sink.take() == Lines{path + ": data_changed " + path + " 1"});
    }
    CHECK(rig.watches.count() == 0);
}

// What ZooKeeper's setWatches fires after a gap. Rows: was there, is there; columns: both kinds.
TEST_CASE("catch_up: every pair of before and after") {
    Plant before, after;
    for (Plant* const plant : {&before, &after}) {
        for (const char* const path : {"/same", "/set", "/parent", "/gone", "/again"}) {
            plant->create(path);
        }
        plant->create("/parent/kid");
    }
    after.set("/set");
    after.create("/parent/new");
    after.remove("/gone");
    after.remove("/again");
    after.create("/again");
    after.create("/born");
    const Zxid now{99};
    Rig rig;
    const auto fired = [&](WatchKind kind, const char* path) {
        rig.add(kind, path, 1, "w");
        rig.watches.catch_up(before.tree, after.tree, now);
        Lines lines = rig.sink.take();
        CHECK(rig.watches.count() == (lines.empty() ? 1 : 0));
        rig.watches.remove_session(SessionId{1});
        return lines;
    };
    const WatchKind data = WatchKind::data, children = WatchKind::children;
    CHECK(fired(data, "/same") == Lines{});
    CHECK(fired(children, "/same") == Lines{});
    CHECK(fired(data, "/set") == Lines{"w: data_changed /set 99"});
    CHECK(fired(children, "/set") == Lines{});
    CHECK(fired(data, "/parent") == Lines{});
    CHECK(fired(children, "/parent") == Lines{"w: children_changed /parent 99"});
    CHECK(fired(data, "/gone") == Lines{"w: deleted /gone 99"});
    CHECK(fired(children, "/gone") == Lines{"w: deleted /gone 99"});
    CHECK(fired(data, "/again") == Lines{"w: data_changed /again 99"});
    CHECK(fired(children, "/again") == Lines{"w: children_changed /again 99"});
    CHECK(fired(data, "/born") == Lines{"w: created /born 99"});
    CHECK(fired(children, "/born") == Lines{});
    CHECK(fired(data, "/never") == Lines{});
    CHECK(fired(children, "/never") == Lines{});
    CHECK(fired(children, "/") == Lines{"w: children_changed / 99"});
    CHECK(fired(data, "/") == Lines{});
}

TEST_CASE("catch_up: a node made anew with other children is a change for both kinds") {
    Plant before, after;
    before.create("/a");
    after.create("/x");
    after.create("/a");
    Rig rig;
    rig.data("/a", "data"), rig.children("/a", "children");
    rig.watches.catch_up(before.tree, after.tree, Zxid{9});
    CHECK(rig.sink.take() == Lines{"data: data_changed /a 9", "children: children_changed /a 9"});
}

TEST_CASE("catch_up: every watcher of a path, in order; paths in order of their bytes") {
    Plant before, after;
    after.create("/b");
    after.create("/a");
    after.create("/c");
    Rig rig;
    rig.data("/c", "c1", 1), rig.data("/a", "a1", 2), rig.data("/b", "b1", 1);
    rig.data("/a", "a2", 1), rig.data("/d", "d1", 1), rig.children("/", "root", 2);
    rig.watches.catch_up(before.tree, after.tree, Zxid{7});
    CHECK(rig.sink.take() == Lines{"a1: created /a 7", "a2: created /a 7", "b1: created /b 7",
                                   "c1: created /c 7", "root: children_changed / 7"});
    CHECK(rig.watches.count() == 1);
    CHECK(rig.watches.count(SessionId{1}) == 1);
    CHECK(rig.watches.count(SessionId{2}) == 0);
}

TEST_CASE("catch_up: between equal trees nothing fires, and watchers stay armed") {
    Plant tree;
    tree.create("/a");
    Rig rig;
    rig.data("/a", "data"), rig.children("/a", "children"), rig.data("/none", "none");
    rig.watches.catch_up(tree.tree, tree.tree, Zxid{7});
    CHECK(rig.sink.take().empty());
    CHECK(rig.watches.count() == 3);
    rig.watches.on_deleted("/a", Zxid{8}, {});
    CHECK(rig.sink.take().size() == 2);
}

TEST_CASE("random: against a list of watches searched from front to back") {
    struct Plain {
        WatchKind kind;
        Bytes path;
        std::uint64_t session;
        std::string name;
    };
    coord::Rng rng(4);
    Rig rig;
    std::vector<Plain> plain;
    const auto expect = [&](WatchKind kind, const Bytes& path, const std::string& event) {
        Lines lines;
        for (std::size_t i = 0; i < plain.size();) {
            if (plain[i].kind != kind || plain[i].path != path) {
                i += 1;
                continue;
            }
            lines.push_back(plain[i].name + ": " + event);
            plain.erase(plain.begin() + static_cast<std::ptrdiff_t>(i));
        }
        return lines;
    };
    for (int step = 0; step < 4000; step++) {
        const Bytes path = "/" + std::to_string(rng.below(8));
        const std::uint64_t session = 1 + rng.below(4);
        const WatchKind kind = rng.chance(500) ? WatchKind::data : WatchKind::children;
        const Zxid zxid{static_cast<std::uint64_t>(step) + 1};
        const std::string tail = " " + path + " " + std::to_string(zxid.value);
        Lines expected;
        switch (rng.below(8)) {
            case 0:
                rig.watches.on_created(path, zxid, {});
                expected = expect(WatchKind::data, path, "created" + tail);
                break;
            case 1: {
                rig.watches.on_deleted(path, zxid, {});
                expected = expect(WatchKind::data, path, "deleted" + tail);
                const Lines rest = expect(WatchKind::children, path, "deleted" + tail);
                expected.insert(expected.end(), rest.begin(), rest.end());
                break;
            }
            case 2:
                rig.watches.on_data_changed(path, zxid, {});
                expected = expect(WatchKind::data, path, "data_changed" + tail);
                break;
            case 3:
                rig.watches.on_children_changed(path, zxid, {});
                expected = expect(WatchKind::children, path, "children_changed" + tail);
                break;
            case 4:
                if (!rng.chance(100)) break;
                rig.watches.remove_session(SessionId{session});
                for (std::size_t i = plain.size(); i > 0; i--) {
                    if (plain[i - 1].session != session) continue;
                    plain.erase(plain.begin() + static_cast<std::ptrdiff_t>(i - 1));
                }
                break;
            default: {
                const std::string name = "w" + std::to_string(step);
                rig.add(kind, path, session, name.c_str());
                plain.push_back(Plain{kind, path, session, name});
            }
        }
        REQUIRE(rig.sink.take() == expected);
        REQUIRE(rig.watches.count() == plain.size());
    }
}

TEST_CASE("W7 who watches what, by session and by path: wchc, wchp, wchs") {
    Rig rig;
    using coord::WatchOrder;
    CHECK(rig.watches.list(WatchOrder::by_session, {}, 10).empty());
    CHECK(rig.watches.list(WatchOrder::by_path, {}, 10).empty());
    rig.recursive("/b", "", 2), rig.data("/b", "", 1), rig.data("/a", "", 2);
    rig.children("/b", "", 1), rig.data("/b", "", 1), rig.persistent("/a", "", 1);
    const Lines by_session = {"1 /a persistent 1", "1 /b data 2", "1 /b children 1",
                              "2 /a data 1",       "2 /b recursive 1"};
    const Lines by_path = {"1 /a persistent 1", "2 /a data 1", "1 /b data 2", "1 /b children 1",
                           "2 /b recursive 1"};
    CHECK(rows(rig.watches.list(WatchOrder::by_session, {}, 10)) == by_session);
    CHECK(rows(rig.watches.list(WatchOrder::by_path, {}, 10)) == by_path);
    CHECK(rig.watches.list(WatchOrder::by_path, {}, 0).empty());
    const coord::WatchCounts counts = rig.watches.counts();
    CHECK(counts.sessions == 2);
    CHECK(counts.paths == 2);
    CHECK(counts.watchers == 6);
    CHECK(counts.watchers == rig.watches.count());
    CHECK(rig.sink.lines.empty());  // nobody hears of it
    rig.watches.remove_session(SessionId{1});
    CHECK(rows(rig.watches.list(WatchOrder::by_path, {}, 10)) ==
          Lines{"2 /a data 1", "2 /b recursive 1"});
    rig.watches.on_data_changed("/a", Zxid{1}, {});
    CHECK(rows(rig.watches.list(WatchOrder::by_session, {}, 10)) == Lines{"2 /b recursive 1"});
    CHECK(rig.watches.counts().paths == 1);
}

TEST_CASE("W7 pages of any size are the whole list, whatever was added first, or has gone since") {
    for (const auto order : {coord::WatchOrder::by_session, coord::WatchOrder::by_path}) {
        Rig forth, back;
        const auto add = [](Rig& rig, std::uint64_t i) {
            const Bytes path = "/" + std::to_string(i * 7 % 13);
            rig.add(static_cast<WatchKind>(i % 4), path, i % 5 + 1, "");
        };
        for (std::uint64_t i = 0; i < 200; i++) add(forth, i), add(back, 199 - i);
        const Lines whole = rows(forth.watches.list(order, {}, SIZE_MAX));
        CHECK(whole == rows(back.watches.list(order, {}, SIZE_MAX)));
        for (const std::size_t limit : {1u, 2u, 7u, 199u, 200u, 201u}) {
            Lines paged;
            coord::WatchRow after;
            for (std::size_t pages = 0; pages <= whole.size(); pages++) {
                const auto page = forth.watches.list(order, after, limit);
                CHECK(page.size() <= limit);
                if (page.empty()) break;
                for (const std::string& line : rows(page)) paged.push_back(line);
                after = page.back();
            }
            CHECK(paged == whole);
        }
        const auto page = forth.watches.list(order, {}, 20);
        const Lines rest = rows(forth.watches.list(order, page.back(), SIZE_MAX));
        forth.watches.remove(coord::WatcherType::any, page.back().path, page.back().session,
                             Zxid{1});
        const Lines left = rows(forth.watches.list(order, page.back(), SIZE_MAX));
        for (const std::string& line : left) {
            CHECK(std::find(rest.begin(), rest.end(), line) != rest.end());
        }
        CHECK(left.size() + 4 > rest.size());  // but of that session at that path
    }
}

}  // TEST_SUITE
