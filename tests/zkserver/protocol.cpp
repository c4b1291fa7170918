// zkserver without its sockets: the protocol's bytes, zoo.cfg, and the connection as a client sees
// it, over a replica in memory.
#include "zkserver/pages.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

using namespace zkserver;
using coord::milliseconds;

namespace {

Bytes hex(const std::string& text) {  // "00 0a" as bytes
    Bytes bytes;
    for (std::size_t i = 0; i + 1 < text.size();) {
        if (text[i] == ' ') {
            i += 1;
            continue;
        }
        bytes.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
        i += 2;
    }
    return bytes;
}

std::string to_hex(BytesView bytes) {
    std::string text;
    for (const char c : bytes) {
        char two[4];
        std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
        text += two;
    }
    return text;
}

// A replica, a service, and time that is given.
struct Rig {
    explicit Rig(const std::string& text = "") {
        const std::string all = "tickTime=2000\ndataDir=/data\nclientPort=2181\n" + text;
        REQUIRE(ConfigReader(config).read(all) == "");
        turn(3);
    }
    static coord::ReplicaOptions options() {
        coord::ReplicaOptions options;
        options.super_digest = coord::digest_id("super:secret");
        return options;
    }
    ~Rig() { replica.reset(); }  // before the service: what its watchers hold looks there
    void turn(int times = 1) {
        for (int i = 0; i < times; i++) {
            service.now = service.now + milliseconds(1);
            replica->poll(service.now, 1000);
            for (const Ticket& ticket : service.take_touched()) {
                Connection* const connection = ticket.find();
                if (connection == nullptr) continue;
                service.untouch(*connection);
                connection->go_on();
            }
        }
    }

    // So much time goes by, in which it looks often.
    void pass(std::int64_t ms) {
        for (std::int64_t done = 0; done <= ms; done += 500) {
            service.now = service.now + milliseconds((std::min)(ms - done, std::int64_t{500}));
            service.tick(service.now);
            turn(1);
        }
        turn(4);
    }

    Config config;
    coord::MemoryStorage disk;
    std::optional<coord::Replica> replica{std::in_place, options(), disk};
    Service service{*replica, config, 1};
};

struct Reply {
    std::int32_t xid = 0;
    std::int64_t zxid = 0;
    std::int32_t error = 0;
    Bytes body;
};

class TestClient {
public:
    explicit TestClient(Rig& rig) : rig_(rig), connection_(&rig.service.open("127.0.0.1", 4711)) {
        ticket_ = connection_->ticket();
    }
    ~TestClient() {
        if (ticket_.find() != nullptr) rig_.service.close(*connection_);
    }
    void drop() { rig_.service.close(*connection_); }
    Connection& connection() { return *connection_; }
    Bytes take() {  // what has been sent
        Bytes bytes(connection_->output());
        connection_->sent(bytes.size());
        return bytes;
    }
    void give(BytesView bytes) { connection_->receive(bytes); }
    static Bytes framed(BytesView frame) {
        Bytes bytes;
        coord::Writer(bytes).bytes(frame);
        return bytes;
    }
    Bytes greeting(std::uint64_t session = 0, BytesView password = BytesView(zeros, 16)) {
        Bytes frame;
        JuteWriter out(frame);
        out.i32(0), out.i64(0), out.i32(10000), out.i64(static_cast<std::int64_t>(session));
        out.bytes(password);
        out.boolean(false);
        return framed(frame);
    }
    Bytes open() {
        give(greeting());
        rig_.turn(4);
        return take();
    }
    void ask(std::int32_t xid, std::int32_t type, BytesView body = {}) {
        Bytes frame;
        JuteWriter out(frame);
        out.i32(xid), out.i32(type);
        give(framed(frame + Bytes(body)));
    }
    std::vector<Reply> replies() {
        const Bytes bytes = take();
        std::vector<Reply> found;
        for (std::size_t at = 0; at < bytes.size();) {
            coord::Reader in(BytesView(bytes).substr(at));
            const std::size_t size = in.u32();
            Reply reply;
            reply.xid = in.i32(), reply.zxid = in.i64(), reply.error = in.i32();
            reply.body.assign(in.raw(size - 16));
            REQUIRE(in.ok());
            found.push_back(reply);
            at += 4 + size;
        }
        return found;
    }
    std::vector<Reply> replies_after(int turns) { return rig_.turn(turns), replies(); }

private:
    static constexpr char zeros[16] = {};
    Rig& rig_;
    Connection* connection_;
    Ticket ticket_;
};

Bytes path_body(BytesView path) {
    Bytes body;
    JuteWriter(body).bytes(path);
    return body;
}
Bytes watch_body(BytesView path, bool watch) { return path_body(path) + char(watch ? 1 : 0); }
Bytes create_body(BytesView path, BytesView data, std::int32_t flags = 0) {
    Bytes body;
    JuteWriter out(body);
    out.bytes(path), out.bytes(data), out.acl(coord::open_acl()), out.i32(flags);
    return body;
}
Bytes set_body(BytesView path, BytesView data, std::int32_t version = -1) {
    Bytes body;
    JuteWriter out(body);
    out.bytes(path), out.bytes(data), out.i32(version);
    return body;
}
// Of a watch event: its type and path.
std::string event_of(const Reply& reply) {
    JuteReader in(reply.body);
    const std::int32_t type = in.i32();
    in.i32();
    return std::to_string(type) + " " + Bytes(in.bytes());
}

}  // namespace

TEST_SUITE_BEGIN("zkserver");

// ---------------------------------------------------------------------------------- jute

TEST_CASE("jute: null, nothing and lengths that are none") {
    const Bytes bytes = hex("ffffffff 00000000 00000002 6869 fffffffe");
    JuteReader in(bytes);
    CHECK(coord::is_null(in.bytes()));
    const BytesView nothing = in.bytes();
    CHECK(nothing.empty());
    CHECK(!coord::is_null(nothing));
    CHECK(in.bytes() == "hi");
    CHECK(in.ok());
    in.bytes();
    CHECK(!in.ok());
    const Bytes large = hex("7fffffff 00");
    JuteReader over(large);
    over.bytes();
    CHECK(!over.ok());
}

TEST_CASE("jute: a vector is not longer than what is left can hold") {
    const Bytes null = hex("ffffffff"), two = hex("00000002 00000000 00000000");
    const Bytes many = hex("00000003 00000000 00000000"), negative = hex("fffffffe");
    JuteReader a(null), b(two), c(many), d(negative);
    CHECK(a.count(4) == 0);
    CHECK(a.ok());
    CHECK(b.count(4) == 2);
    CHECK(b.ok());
    CHECK(c.count(4) == 0);
    CHECK(!c.ok());
    CHECK(d.count(4) == 0);
    CHECK(!d.ok());
}

TEST_CASE("jute: a Stat is 68 bytes in this order") {
    coord::Stat stat;
    stat.czxid = coord::Zxid{1}, stat.mzxid = coord::Zxid{2}, stat.ctime_ms = 3, stat.mtime_ms = 4;
    stat.version = 5, stat.cversion = 6, stat.aversion = 7;
    stat.ephemeral_owner = coord::SessionId{8};
    stat.data_length = 9, stat.num_children = 10, stat.pzxid = coord::Zxid{11};
    Bytes bytes;
    JuteWriter(bytes).stat(stat);
    CHECK(to_hex(bytes) == "00000000000000010000000000000002"
                           "00000000000000030000000000000004"
                           "000000050000000600000007" "0000000000000008"
                           "000000090000000a" "000000000000000b");
}

TEST_CASE("jute: a create's fields, and one that is cut off anywhere") {
    const Bytes body = hex("00000002 2f61 00000001 78 00000001 0000001f 00000005 776f726c64"
                           "00000006 616e796f6e65 00000003");
    JuteReader in(body);
    Ask asked;
    REQUIRE(asked.read(in, Ask::layout(op::create)));
    CHECK(asked.path == "/a");
    CHECK(asked.data == "x");
    CHECK(asked.acl == coord::open_acl());
    CHECK(asked.flags == 3);
    for (std::size_t size = 0; size < body.size(); size++) {
        JuteReader cut(BytesView(body).substr(0, size));
        Ask other;
        CHECK(!other.read(cut, Ask::layout(op::create)));
    }
}

// ---------------------------------------------------------------------------------- zoo.cfg

static std::string error_of(const std::string& text) {
    Config config;
    return ConfigReader(config).read(text);
}

TEST_CASE("config: as it is in the wild") {
    Config config;
    const std::string error = ConfigReader(config).read(
        "# The number of milliseconds of each tick\r\ntickTime=2000\r\n! so\n initLimit = 10\n"
        "syncLimit: 5\ndataDir=C:\\\\zookeeper\\\\data\ndataLogDir=D:\\logs\\\nclientPort=2182\n"
        "maxClientCnxns=0\nautopurge.snapRetainCount=1\n4lw.commands.whitelist=stat, ruok,\\\n"
        "  mntr\nserver.1=zoo1:2888:3888;2181\nserver.2=[::1]:2888:3888:observer;[::1]:2182\n"
        "server.3=zoo3:2888:3888:participant\nfoo.bar=1\nenforceQuota=true\n");
    CHECK(error == "");
    CHECK(config.tick_ms == 2000);
    CHECK(config.sync_limit == 5);
    CHECK(config.data_dir == "C:\\zookeeper\\data");
    CHECK(config.data_log_dir == "D:\\logs\\");
    CHECK(config.connections_per_address == 0);
    CHECK(config.snapshots_kept == 3);
    CHECK(config.enforce_quota);
    CHECK(config.allows("mntr"));
    CHECK(config.allows("ruok"));
    CHECK(!config.allows("srvr"));
    REQUIRE(config.members.size() == 3);
    CHECK(config.members[0].host == "zoo1");
    CHECK(config.members[0].client_port == 2181);
    CHECK(config.members[1].host == "::1");
    CHECK(config.members[1].is_observer);
    CHECK(config.members[1].client_host == "::1");
    CHECK(config.members[2].election_port == 3888);
    CHECK(!config.is_standalone());
    REQUIRE(config.warnings.size() == 2);
    CHECK(config.warnings[0] == "line 16: unknown key foo.bar: it has no effect");
}

TEST_CASE("config: defaults are ZooKeeper's") {
    Config config;
    CHECK(ConfigReader(config).read("tickTime=100\ndataDir=/d\nclientPort=1") == "");
    CHECK(config.data_log_dir == "/d");
    CHECK(config.connections_per_address == 60);
    CHECK(config.timeout_min_ms() == 200);
    CHECK(config.timeout_max_ms() == 2000);
    CHECK(config.snapshot_every == 100000);
    CHECK(config.outstanding_limit == 1000);
    CHECK(config.frame_bytes_max == 0xfffff);
    CHECK(config.allows("srvr"));
    CHECK(!config.allows("ruok"));
    CHECK(config.is_standalone());
}

TEST_CASE("config: what is wrong is refused with its line") {
    CHECK(error_of("tickTime=2000\nclientPort=abc\n").substr(0, 18) == "line 2: clientPort");
    CHECK(error_of("\n\ntickTime=0").substr(0, 7) == "line 3:");
    CHECK(error_of("clientPort=70000").substr(0, 7) == "line 1:");
    CHECK(error_of("server.1=host").substr(0, 7) == "line 1:");
    CHECK(error_of("server.1=host:1:2:boss").substr(0, 7) == "line 1:");
    CHECK(error_of("server.1=host:1:2;x").substr(0, 7) == "line 1:");
    CHECK(error_of("server.300=host:1:2").substr(0, 7) == "line 1:");
    CHECK(error_of("peerType=boss").substr(0, 7) == "line 1:");
    CHECK(error_of("skipACL=maybe").substr(0, 7) == "line 1:");
    CHECK(error_of("coord.feeders=1,x").substr(0, 7) == "line 1:");
    CHECK(error_of("coord.feeders=").substr(0, 7) == "line 1:");
    Config fed;
    REQUIRE(ConfigReader(fed).read("tickTime=1\ndataDir=/d\nclientPort=1\n"
                                   "coord.feeders=2, 1\n") == "");
    CHECK(fed.feeders == std::vector<std::uint32_t>{2, 1});
    CHECK(error_of("dataDir=/d\nclientPort=1") == "tickTime is not set");
    CHECK(error_of("tickTime=1\nclientPort=1") == "dataDir is not set");
    CHECK(error_of("tickTime=1\ndataDir=/d") == "clientPort is not set");
    CHECK(error_of("tickTime=1\ndataDir=/d\nserver.1=a:1:2\nserver.2=b:1:2\nsyncLimit=1") ==
          "initLimit is not set");
    CHECK(error_of("tickTime=1\ndataDir=/d\nclientPort=1\nminSessionTimeout=9\n"
                   "maxSessionTimeout=8") == "minSessionTimeout is more than maxSessionTimeout");
    CHECK(read_myid("3\n") == 3);
    CHECK(read_myid(" 255 ") == 255);
    CHECK(read_myid("x") == 0);
    CHECK(read_myid("256") == 0);
}

// ---------------------------------------------------------------------------------- connection

TEST_CASE("connection: the handshake's bytes, with and without the last one") {
    Rig rig;
    TestClient with(rig), without(rig);
    CHECK(to_hex(with.greeting()) == "0000002d" "00000000" "0000000000000000" "00002710"
                                     "0000000000000000" "00000010"
                                     "00000000000000000000000000000000" "00");
    const Bytes answer = with.open();
    REQUIRE(answer.size() == 4 + 37);
    CHECK(to_hex(answer.substr(0, 12)) == "00000025" "00000000" "00002710");
    Bytes old = without.greeting();
    old.pop_back(), old[3] = 0x2c;
    without.give(old);
    rig.turn(4);
    CHECK(without.take().size() == 4 + 36);
}

TEST_CASE("connection: a session that there is not is refused in zeros") {
    Rig rig;
    TestClient client(rig);
    client.give(client.greeting(12345));
    rig.turn(4);
    CHECK(to_hex(client.take()) == "00000025" "00000000" "00000000" "0000000000000000" "00000010"
                                   "00000000000000000000000000000000" "00");
    CHECK(client.connection().is_over());
}

TEST_CASE("connection: ping, and an operation that there is not") {
    Rig rig;
    TestClient client(rig);
    client.open();
    client.ask(-2, op::ping);
    const Bytes pong = client.take();
    CHECK(to_hex(pong.substr(0, 8)) == "00000010" "fffffffe");
    CHECK(to_hex(pong.substr(16)) == "00000000");
    client.ask(7, 4711);
    CHECK(to_hex(client.take()) == "00000010" "00000007" "ffffffffffffffff" "fffffffa");
}

TEST_CASE("connection: answers come in the order of the requests, in whatever pieces those came") {
    Rig rig;
    TestClient client(rig);
    client.open();
    Bytes all;
    const auto add = [&](std::int32_t xid, std::int32_t type, const Bytes& body) {
        Bytes frame;
        JuteWriter out(frame);
        out.i32(xid), out.i32(type);
        all += TestClient::framed(frame + body);
    };
    add(1, op::create, create_body("/a", "1"));
    add(-2, op::ping, "");
    add(2, op::get_data, watch_body("/a", false));
    add(3, op::get_data, watch_body("/a/", false));  // is answered without the replica
    add(4, op::remove, path_body("/a") + hex("ffffffff"));
    add(5, op::exists, watch_body("/a", false));
    for (const char byte : all) client.give(BytesView(&byte, 1));
    const std::vector<Reply> replies = client.replies_after(6);
    REQUIRE(replies.size() == 6);
    const std::int32_t xids[] = {1, -2, 2, 3, 4, 5};
    const std::int32_t errors[] = {0, 0, 0, -101, 0, -101};
    for (std::size_t i = 0; i < 6; i++) {
        CHECK(replies[i].xid == xids[i]);
        CHECK(replies[i].error == errors[i]);
        if (i > 0) CHECK(replies[i].zxid >= replies[i - 1].zxid);
    }
    CHECK(replies[0].body == path_body("/a"));
    CHECK(replies[2].body.size() == 5 + 68);
}

TEST_CASE("connection: an event comes before the answer that shows its change, and once") {
    Rig rig;
    TestClient client(rig), other(rig);
    client.open(), other.open();
    client.ask(1, op::create, create_body("/a", "1"));
    client.ask(2, op::get_data, watch_body("/a", true));
    client.ask(3, op::get_children, watch_body("/a", true));
    client.ask(4, op::exists, watch_body("/a", true));
    client.replies_after(6);
    other.ask(1, op::remove, path_body("/a") + hex("ffffffff"));
    rig.turn(6);
    client.ask(5, op::exists, watch_body("/a", false));
    const std::vector<Reply> replies = client.replies_after(6);
    REQUIRE(replies.size() == 2);
    CHECK(replies[0].xid == -1);
    CHECK(replies[0].zxid == -1);
    CHECK(event_of(replies[0]) == "2 /a");
    CHECK(replies[1].xid == 5);
}

// Asked for while one is set, and while the change that fires that is under way.
TEST_CASE("connection: a watch that is asked for again is there after the first has fired") {
    Rig rig;
    TestClient client(rig), other(rig);
    client.open(), other.open();
    client.ask(1, op::create, create_body("/a", "1"));
    client.ask(2, op::get_data, watch_body("/a", true));
    client.replies_after(6);
    for (int i = 0; i < 20; i++) {
        other.ask(1, op::set_data, set_body("/a", "2"));
        client.ask(3, op::get_data, watch_body("/a", true));
        client.ask(4, op::get_data, watch_body("/a", true));
        std::string seen;
        for (const Reply& reply : client.replies_after(8)) {
            seen += reply.xid == -1 ? "event " : std::to_string(reply.xid) + " ";
        }
        const bool is_once = seen == "event 3 4 " || seen == "3 event 4 " || seen == "3 4 event ";
        CHECK_MESSAGE(is_once, seen);
        if (seen == "3 4 event ") {  // the change was the later one: it took the watch with it
            client.ask(5, op::get_data, watch_body("/a", true));
            client.replies_after(6);
        }
    }
    CHECK(rig.replica->count_watches().watchers == 1);
    for (int i = 0; i < 100; i++) client.ask(6, op::get_data, watch_body("/a", true));
    rig.turn(8);
    CHECK(rig.replica->count_watches().watchers == 1);
}

// A client that is cut off between the two would set its watch again as of that zxid.
TEST_CASE("connection: an answer's zxid is before that of an event that is still to come") {
    Rig rig;
    TestClient client(rig), other(rig);
    client.open(), other.open();
    client.ask(1, op::create, create_body("/a", "1"));
    client.replies_after(6);
    int late = 0;
    for (int i = 0; i < 20; i++) {
        client.ask(2, op::create, create_body("/a/n", "", 2));
        client.ask(3, op::get_data, watch_body("/a", true));
        other.ask(4, op::set_data, set_body("/a", "2"));
        const std::vector<Reply> replies = client.replies_after(8);
        const std::vector<Reply> others = other.replies();
        REQUIRE(replies.size() >= 2);
        REQUIRE(others.size() == 1);
        if (replies.back().xid != -1) continue;  // it has read what the other one wrote
        late += 1;
        CHECK(replies[replies.size() - 2].zxid < others[0].zxid);
    }
    CHECK(late > 0);
}

TEST_CASE("connection: writes to what is no path take a zxid, as in ZooKeeper") {
    Rig rig;
    TestClient client(rig);
    client.open();
    const Bytes any = hex("ffffffff");
    client.ask(1, op::remove, path_body("a") + any);
    client.ask(2, op::set_data, set_body("/a//b", ""));
    client.ask(3, op::remove, path_body("/a/") + any);
    client.ask(4, op::create, create_body("/a//b", ""));
    client.ask(5, op::create, create_body("//b", ""));
    client.ask(6, op::create, create_body("/a", "", 9));
    client.ask(7, op::create, create_body("/a", "", 5));
    const std::vector<Reply> replies = client.replies_after(6);
    const std::int32_t errors[] = {-8, -8, -101, -101, -8, -8, -6};
    REQUIRE(replies.size() == 7);
    for (std::size_t i = 0; i < 7; i++) {
        CHECK(replies[i].error == errors[i]);
        if (i > 0) CHECK(replies[i].zxid == replies[i - 1].zxid + 1);
    }
    CHECK(rig.replica->tree().size() == 4);
}

TEST_CASE("connection: no answer overtakes the event of a watch that is asked for again") {
    Rig rig;
    TestClient client(rig);
    client.open();
    client.ask(1, op::create, create_body("/a", "1"));
    client.ask(2, op::get_data, watch_body("/a", true));
    client.replies_after(6);
    client.ask(3, op::set_data, set_body("/a", "2"));
    client.ask(4, op::get_data, watch_body("/a", true));  // asked for while that of 2 is set
    client.ask(5, op::set_data, set_body("/a", "3"));
    client.ask(6, op::get_data, watch_body("/a", false));
    std::string seen;
    for (const Reply& reply : client.replies_after(12)) seen += std::to_string(reply.xid) + " ";
    CHECK(seen == "-1 3 4 -1 5 6 ");
}

TEST_CASE("connection: a watch that is removed and set again in a row is there") {
    Rig rig;
    TestClient client(rig), other(rig);
    client.open(), other.open();
    const Bytes persistent = path_body("/a") + hex("00000000");
    client.ask(1, op::add_watch, persistent);
    client.ask(2, op::remove_watches, path_body("/a") + hex("00000003"));
    client.ask(3, op::add_watch, persistent);
    client.ask(4, op::remove_watches, path_body("/b") + hex("00000003"));
    const std::vector<Reply> replies = client.replies_after(12);
    REQUIRE(replies.size() == 4);
    CHECK(replies[1].error == 0);
    CHECK(replies[3].error == -121);
    other.ask(1, op::create, create_body("/a", ""));
    rig.turn(6);
    const std::vector<Reply> events = client.replies();
    REQUIRE(events.size() == 1);
    CHECK(event_of(events[0]) == "1 /a");
}

TEST_CASE("connection: of what is gone each list of setWatches hears, as in ZooKeeper") {
    Rig rig;
    TestClient client(rig);
    client.open();
    Bytes body;
    JuteWriter out(body);
    out.i64(0);
    out.i32(1), out.bytes("/gone");  // data, exist, child
    out.i32(0);
    out.i32(1), out.bytes("/gone");
    client.ask(-8, op::set_watches, body);
    const std::vector<Reply> replies = client.replies_after(6);
    REQUIRE(replies.size() == 3);
    CHECK(event_of(replies[0]) == "2 /gone");
    CHECK(event_of(replies[1]) == "2 /gone");
    CHECK(replies[2].xid == -8);
}

TEST_CASE("connection: many watches fire at two changes of one transaction") {
    Rig rig;
    TestClient client(rig), other(rig);
    client.open(), other.open();
    client.ask(1, op::create, create_body("/a", ""));
    client.ask(2, op::add_watch, path_body("/a") + hex("00000000"));
    client.ask(3, op::add_watch, path_body("/a") + hex("00000001"));
    client.replies_after(6);
    Bytes multi;
    JuteWriter out(multi);
    for (const char* value : {"1", "2"}) {
        MultiHeader{op::set_data, false, -1}.write(out);
        multi += set_body("/a", value);
    }
    MultiHeader{-1, true, -1}.write(out);
    other.ask(1, op::multi, multi);
    rig.turn(6);
    const std::vector<Reply> events = client.replies();
    REQUIRE(events.size() == 2);
    CHECK(event_of(events[0]) == "3 /a");
    CHECK(event_of(events[1]) == "3 /a");
}

TEST_CASE("connection: a multi that fails, in ZooKeeper's bytes") {
    Rig rig;
    TestClient client(rig);
    client.open();
    Bytes multi;
    JuteWriter out(multi);
    MultiHeader{op::create, false, -1}.write(out);
    multi += create_body("/a", "");
    MultiHeader{op::create, false, -1}.write(out);
    multi += create_body("/b//c", "");  // refused in its turn, and not before
    MultiHeader{op::remove, false, -1}.write(out);
    multi += path_body("/a") + hex("ffffffff");
    MultiHeader{-1, true, -1}.write(out);
    client.ask(1, op::multi, multi);
    client.ask(2, op::exists, watch_body("/a", false));
    const std::vector<Reply> replies = client.replies_after(6);
    REQUIRE(replies.size() == 2);
    CHECK(replies[0].error == 0);
    CHECK(to_hex(replies[0].body) == "ffffffff" "00" "00000000" "00000000"
                                     "ffffffff" "00" "ffffff9b" "ffffff9b"
                                     "ffffffff" "00" "fffffffe" "fffffffe"
                                     "ffffffff" "01" "ffffffff");
    CHECK(replies[1].error == -101);
}

TEST_CASE("connection: a session is taken up by another one, and its first one ends") {
    Rig rig;
    TestClient first(rig), second(rig), third(rig);
    const Bytes hello = first.open();
    JuteReader in(BytesView(hello).substr(4));
    in.i32(), in.i32();
    const auto session = static_cast<std::uint64_t>(in.i64());
    const Bytes password(in.bytes());
    first.ask(1, op::create, create_body("/e", "", 1));
    first.replies_after(6);
    third.give(third.greeting(session, Bytes(16, 'x')));
    second.give(second.greeting(session, password));
    rig.turn(8);
    CHECK(to_hex(third.take().substr(8, 4)) == "00000000");
    CHECK(to_hex(second.take().substr(8, 4)) == "00002710");
    CHECK(first.connection().is_over());
    second.ask(1, op::exists, watch_body("/e", false));
    CHECK(second.replies_after(6)[0].error == 0);
    second.ask(2, op::close_session);
    CHECK(second.replies_after(6)[0].error == 0);
    CHECK(second.connection().is_over());
    CHECK(!rig.replica->tree().contains("/e"));
}

TEST_CASE("connection: a session ends with its timeout, connected or not") {
    Rig rig;
    TestClient silent(rig);
    {
        TestClient gone(rig);
        silent.open(), gone.open();
        silent.ask(1, op::create, create_body("/silent", "", 1));
        gone.ask(1, op::create, create_body("/gone", "", 1));
        rig.turn(6);
    }
    rig.pass(0);
    CHECK(rig.replica->tree().contains("/gone"));
    rig.pass(9000);
    silent.ask(2, op::ping);
    rig.pass(1500);
    CHECK(!rig.replica->tree().contains("/gone"));
    CHECK(rig.replica->tree().contains("/silent"));
    rig.pass(9000);
    CHECK(!rig.replica->tree().contains("/silent"));
    CHECK(silent.connection().is_over());
    TestClient mute(rig);
    rig.pass(10001);
    CHECK(mute.connection().is_over());
}

TEST_CASE("connection: a pause of the server's is nobody's silence") {
    Rig rig;
    TestClient client(rig);
    client.open();
    client.ask(1, op::create, create_body("/e", "", 1));
    rig.pass(9000);
    rig.service.now = rig.service.now + milliseconds(60000);
    rig.service.tick(rig.service.now);
    rig.turn(4);
    CHECK(rig.replica->tree().contains("/e"));
    rig.pass(2000);
    CHECK(!rig.replica->tree().contains("/e"));
}

TEST_CASE("connection: who does not read is not read, and what waits for it is bounded") {
    Rig rig("globalOutstandingLimit=100000\n");
    TestClient client(rig);
    client.open();
    client.ask(1, op::create, create_body("/a", Bytes(20000, 'x')));
    client.replies_after(6);
    std::size_t asked = 0;
    for (int i = 0; i < 2000; i++) {
        if (!client.connection().wants_input()) break;
        asked += 1;
        client.ask(2, op::get_data, watch_body("/a", false));
        if (i % 100 == 99) rig.turn(2);
    }
    rig.turn(4);
    const std::size_t most = Connection::output_high + Connection::in_flight_max * 20100;
    CHECK(client.connection().output().size() <= most);
    CHECK(client.connection().in_flight() <= Connection::in_flight_max);
    std::size_t answers = 0;
    for (std::size_t before = 1; before != answers;) {  // it reads again: nothing is lost
        before = answers;
        answers += client.replies().size();
        client.connection().go_on();
        rig.turn(4);
    }
    CHECK(answers == asked);
    CHECK(asked == 2000);  // what it has sent is small: all of it is taken, and waits
}

TEST_CASE("connection: what globalOutstandingLimit lets through is shared by all who ask") {
    Rig rig("globalOutstandingLimit=8\n");
    std::vector<std::unique_ptr<TestClient>> clients;
    for (int i = 0; i < 5; i++) {
        clients.push_back(std::make_unique<TestClient>(rig));
        clients.back()->open();
    }
    for (int xid = 1; xid <= 100; xid++) {
        for (const auto& client : clients) client->ask(xid, op::exists, watch_body("/", false));
    }
    std::vector<std::size_t> answered(clients.size());
    for (int turn = 0; turn < 25; turn++) {
        rig.turn();
        for (std::size_t i = 0; i < clients.size(); i++) {
            answered[i] += clients[i]->replies().size();
        }
    }
    const auto ends = std::minmax_element(answered.begin(), answered.end());
    CHECK(*ends.second > 0);
    CHECK(*ends.second < 100);
    CHECK(*ends.first * 2 > *ends.second);
    rig.turn(100);
    CHECK(rig.service.outstanding == 0);
}

TEST_CASE("connection: a frame that is too large, and one that is none, end it alone") {
    Rig rig;
    TestClient large(rig), negative(rig), tiny(rig), good(rig);
    large.open(), negative.open(), tiny.open(), good.open();
    large.give(hex("00100000"));
    negative.give(hex("ffffffff"));
    tiny.give(hex("00000002 0000"));
    CHECK(large.connection().is_over());
    CHECK(negative.connection().is_over());
    CHECK(tiny.connection().is_over());
    good.ask(1, op::exists, watch_body("/", false));
    CHECK(good.replies_after(4)[0].error == 0);
}

TEST_CASE("connection: whatever bytes come, the others do not notice") {
    Rig rig("extendedTypesEnabled=true\n");
    TestClient good(rig);
    good.open();
    coord::Rng rng(20260101);
    const std::int32_t types[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 16, 17, 18, 19, 21, 22,
                                  100, 101, 103, 104, 105, 106, 107, 0, 13, 20, 99};
    for (int round = 0; round < 150; round++) {
        TestClient wild(rig);
        if (rng.chance(900)) wild.open();
        for (int i = 0; i < 30 && !wild.connection().is_over(); i++) {
            Bytes body = create_body(rng.chance(500) ? "/w" : "/w/x", "1", 0);
            const std::size_t changes = static_cast<std::size_t>(rng.below(4));
            for (std::size_t c = 0; c < changes; c++) {
                body[static_cast<std::size_t>(rng.below(body.size()))] =
                    static_cast<char>(rng.chance(500) ? 255 : rng.below(256));
            }
            body.resize(static_cast<std::size_t>(rng.below(body.size() + 1)));
            if (rng.chance(20)) {
                wild.give(body);
            } else {
                wild.ask(i, types[rng.below(std::size(types))], body);
            }
            if (rng.chance(300)) rig.turn();
            wild.take();
        }
        good.ask(round + 1, op::exists, watch_body("/", false));
        const std::vector<Reply> replies = good.replies_after(6);
        REQUIRE(replies.size() == 1);
        REQUIRE(replies[0].xid == round + 1);
    }
    rig.replica->audit();
    CHECK(rig.service.outstanding == 0);
    CHECK(rig.service.connections() == 1);
}

TEST_CASE("connection: authentication") {
    Rig rig;
    TestClient client(rig), refused(rig);
    client.open(), refused.open();
    const auto auth = [](BytesView scheme, BytesView credential) {
        Bytes body;
        JuteWriter out(body);
        out.i32(0), out.bytes(scheme), out.bytes(credential);
        return body;
    };
    client.ask(-4, op::auth, auth("digest", "super:secret"));
    client.ask(1, op::who_am_i);
    const std::vector<Reply> replies = client.replies_after(6);
    REQUIRE(replies.size() == 2);
    CHECK(replies[0].zxid == 0);
    CHECK(replies[0].error == 0);
    CHECK(to_hex(replies[1].body.substr(0, 4)) == "00000003");  // ip, super, digest
    refused.ask(-4, op::auth, auth("x509", "me"));
    CHECK(to_hex(refused.take()) == "00000010" "fffffffc" "0000000000000000" "ffffff8d");
    CHECK(refused.connection().is_over());
}

TEST_CASE("words: on the client port, and none that the whitelist does not have") {
    Rig rig("4lw.commands.whitelist=ruok,mntr\n");
    TestClient a(rig), b(rig), c(rig);
    a.give("ruok\n"), b.give("mntr"), c.give("stat");
    CHECK(a.take() == "imok");
    CHECK(a.connection().is_over());
    CHECK(b.take().find("zk_znode_count\t4\n") != Bytes::npos);
    CHECK(c.take() == "stat is not executed because it is not in the whitelist.\n");
}

TEST_SUITE_END();

TEST_CASE("config: groups and weights, and members in a file of their own") {
    const std::string head = "tickTime=1\ndataDir=/d\ninitLimit=1\nsyncLimit=1\nclientPort=1\n";
    const std::string servers = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2:observer\n";
    Config config;
    const auto load = [&](const std::string& path, std::string& text) {
        text = servers + "group.4=1:2\nweight.2=7\nversion=100000000\n";
        return path == "/f";
    };
    CHECK(ConfigReader(config).read(head + "dynamicConfigFile=/f\n", load) == "");
    REQUIRE(config.members.size() == 3);
    CHECK(config.warnings.empty());
    CHECK(config.members[1].group == 4);
    CHECK(config.members[1].weight == 7);
    CHECK(config.members[2].group == 0);
    CHECK(member_of(config.members[1]).address == "b:1:2");
    CHECK(!member_of(config.members[2]).votes);

    const auto error = [&](const std::string& more, bool is_file = false) {
        Config other;
        const std::string text = is_file ? head + "dynamicConfigFile=/g\n" : head + servers + more;
        return ConfigReader(other).read(text, load);
    };
    CHECK(error("", true) == "/g: cannot be read");
    CHECK(error("group.1=1\n") == "server.2 is in no group");
    CHECK(error("group.1=1:2\ngroup.2=2\n") == "server.2 is in two groups");
    CHECK(error("group.1=1:2:9\n") == "group.1: there is no server.9");
    CHECK(error("weight.1=-1\n") == "line 9: weight.1 wants a number");
    Config file;
    CHECK(ConfigReader(file).read_members("tickTime=4\n") == "line 1: tickTime says nothing of "
                                                             "members");
}

TEST_CASE("config: a file of keys") {
    const std::string key(64, 'a');
    std::vector<std::string> keys;
    CHECK(read_keys("# old, new\n" + key + "\n\n 0B" + key.substr(2) + " \r\n", keys) == "");
    REQUIRE(keys.size() == 2);
    CHECK(keys[0] == std::string(32, '\xaa'));
    CHECK(keys[1].substr(0, 2) == "\x0b\xaa");
    const auto error = [](const std::string& text) {
        std::vector<std::string> found;
        return read_keys(text, found);
    };
    CHECK(error("") == "it wants one key, or two");
    CHECK(error(key + "\n" + key + "\n" + key) == "it wants one key, or two");
    for (const std::string& bad : {key + "a", key.substr(1), "x" + key.substr(1), key + "aa"}) {
        CHECK(error("\n" + bad) == "line 2 is not 64 hexadecimal digits");
    }
}

TEST_CASE("members: an address as /zookeeper/config has it, and read again") {
    Config config;
    const std::string text = "server.7=[::1]:2888:3888:observer;[::2]:2181\n"
                             "server.8=host:1:2;9\n";
    REQUIRE(ConfigReader(config).read_members(text) == "");
    const coord::Member first = member_of(config.members[0]);
    CHECK(first.address == "[::1]:2888:3888;[::2]:2181");
    CHECK(member_of(config.members[1]).address == "host:1:2;0.0.0.0:9");
    std::string host;
    int port = 0;
    REQUIRE(read_address(first, host, port));
    CHECK(host == "::1");
    CHECK(port == 2888);
    CHECK(!read_address(coord::Member(), host, port));
}

TEST_CASE("members: a reconfig's texts, and what ZooKeeper refuses of them") {
    coord::Member member;
    member.id = coord::PeerId{1};
    std::vector<coord::Member> now{member};
    member.id = coord::PeerId{3};
    now.push_back(member);
    std::size_t voters_min = 2;
    const auto read = [&](BytesView joining, BytesView leaving, BytesView members,
                          coord::Reconfig& change, std::int64_t version = -1) {
        change = coord::Reconfig();
        return AskedReconfig{joining, leaving, members, version, voters_min}.read(now, change);
    };
    const BytesView none = coord::null_data;
    coord::Reconfig change;
    REQUIRE(read("server.2=h:1:2;3, server.4=h:5:6:observer;7", "1, 9", none, change, 5) ==
            Errc::ok);
    REQUIRE(change.joining.size() == 2);
    CHECK(change.joining[1].address == "h:5:6;0.0.0.0:7");
    CHECK(!change.joining[1].votes);
    REQUIRE(change.leaving.size() == 2);
    CHECK(change.leaving[1] == coord::PeerId{9});
    CHECK(change.version == coord::Zxid{5});
    CHECK(change.members.empty());

    coord::Reconfig whole;
    const BytesView set = "server.1=h:1:2;3\nserver.2=h:5:6;7\ngroup.1=1\ngroup.2=2\nweight.2=3";
    REQUIRE(read(none, none, set, whole) == Errc::ok);
    REQUIRE(whole.members.size() == 2);
    CHECK(whole.members[1].group == 2);
    CHECK(whole.members[1].weight == 3);
    CHECK(whole.version == coord::Zxid{});

    for (const BytesView bad : {"server.2=h:1:2", "server.2=h", "2=h:1:2;3", "tickTime=3"}) {
        CHECK(read(bad, none, none, change) == Errc::bad_arguments);
    }
    CHECK(read(none, "x", none, change) == Errc::marshalling_error);
    CHECK(read(none, "1", none, change) == Errc::bad_arguments);  // one voter would be left
    CHECK(read("server.1=h:1:2:observer;3", none, none, change) == Errc::bad_arguments);
    CHECK(read(none, none, "server.1=h:1:2;3", change) == Errc::bad_arguments);
    voters_min = 1;
    CHECK(read(none, "1", none, change) == Errc::ok);
    CHECK(read(none, none, "server.1=h:1:2;3", change) == Errc::ok);
    CHECK(read(none, "1,3", none, change) == Errc::bad_arguments);
    CHECK(read(none, "1", set, change) == Errc::bad_arguments);
    CHECK(read(none, none, "", change) == Errc::bad_arguments);
    CHECK(read(none, none, set, change, 0) == Errc::bad_version);
    now[0].weight = 2;  // one by one only where all are alike
    CHECK(read(none, "1", none, change) == Errc::bad_arguments);
    CHECK(read(none, none, set, change) == Errc::ok);
}

TEST_CASE("connection: a reconfig where there is none") {
    Bytes body;
    JuteWriter out(body);
    out.bytes(coord::null_data), out.bytes("1"), out.bytes(coord::null_data), out.i64(-1);
    for (const bool is_on : {false, true}) {
        Rig rig(is_on ? "reconfigEnabled=true\n" : "");
        TestClient client(rig);
        client.open();
        client.ask(1, op::reconfig, body);
        client.ask(2, op::reconfig, body.substr(0, 7));
        rig.turn(4);
        const std::vector<Reply> replies = client.replies();
        REQUIRE(replies.size() == 2);
        CHECK(replies[0].error == (is_on ? -6 : -123));
        CHECK(replies[1].error == -5);
    }
}

TEST_CASE("pages: what they answer, and that no path is markup") {
    Rig rig;
    TestClient client(rig);
    client.open();
    Bytes body;
    JuteWriter out(body);
    out.bytes("/<b>&'x"), out.bytes("secret"), out.count(1), out.i32(31), out.bytes("world");
    out.bytes("anyone"), out.i32(0);
    client.ask(1, op::create, body);
    rig.turn(4);
    Pages pages(rig.service);
    const auto get = [&](const std::string& target) {
        return pages.answer("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n");
    };
    const std::string page = get("/");
    CHECK(page.find("<b>") == std::string::npos);
    CHECK(page.find("&lt;b&gt;&amp;&#39;x") != std::string::npos);
    CHECK(page.find("href=\"/?path=/%3Cb%3E%26%27x\"") != std::string::npos);
    const std::string node = get("/?path=/%3Cb%3E%26%27x");
    CHECK(node.find("<tr><th>bytes<td>6\n") != std::string::npos);
    CHECK(node.find("secret") == std::string::npos);
    CHECK(get("/?path=/none").find("there is no such node") != std::string::npos);
    CHECK(get("/?path=%zz%").find("<h2>/</h2>") != std::string::npos);  // that is no path
    CHECK(get("/state").find("\"role\":\"LEADING\"") != std::string::npos);
    CHECK(get("/metrics").find("# TYPE zk_znode_count gauge\nzk_znode_count 5\n") !=
          std::string::npos);
    CHECK(get("/commands/ruok").find("{\"command\":\"ruok\",\"error\":null}\n") !=
          std::string::npos);
    CHECK(get("/commands/mntr").find("\"znode_count\":5,") != std::string::npos);
    CHECK(get("/commands/nothing").find("HTTP/1.1 404") == 0);
    CHECK(get("/x").find("HTTP/1.1 404") == 0);
    for (const char* const bad : {"\r\n\r\n", "GET\r\n\r\n", "GET /\r\n a b\r\n\r\n"}) {
        CHECK(pages.answer(bad).find("HTTP/1.1 400") == 0);
    }
    CHECK(pages.answer("POST / HTTP/1.1\r\n\r\n").find("HTTP/1.1 405") == 0);
}
