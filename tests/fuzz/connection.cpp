// Fuzz target: what clients send to zkserver, in whatever pieces, and what they read; time that
// goes by; connections that are dropped and sessions that are taken up again. Each of them hears
// frames that are whole, answers whose zxids do not fall, and events that can be; nothing is left
// of one that is gone; and one that behaves does not notice the others.
// How to run it: fuzz.hpp; with -Iexamples.
//
// ctest: --runs=20000
//
// Input: u8 flags (1: extendedTypesEnabled, 2: reconfigEnabled, 4: skipACL, 8: a small
// jute.maxbuffer), then commands, each u8 what modulo 8:
//
//   0  u8 n, and n bytes as they are       4  u8: another of four places from here on
//   1  u8 n, and n bytes as a frame        5  the connection here is dropped
//   2  u8: so many polls, at most 7        6  u8: a greeting; not 0: of the session known here
//   3  u8: so many times 100 ms go by      7  what has been sent is read
#include "fuzz.hpp"

#include "zkserver/words.hpp"

#include <array>
#include <memory>
#include <optional>

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::expect;
using zkserver::Connection;
using zkserver::JuteReader;
using zkserver::JuteWriter;
using zkserver::Ticket;
namespace op = zkserver::op;

// One end of a connection: what it has been sent, checked.
struct Place {
    Ticket ticket;
    bool had_session = false;
    bool has_greeted = false;   // its first frame has come
    std::int64_t zxid = 0;
    std::uint64_t session = 0;  // that it knows, also of the connection before
    Bytes password = Bytes(16, '\0');
    Bytes in;

    Connection* find() const { return ticket.service == nullptr ? nullptr : ticket.find(); }
};

Bytes framed(BytesView frame) {
    Bytes bytes;
    coord::Writer(bytes).bytes(frame);
    return bytes;
}

Bytes greeting_of(std::uint64_t session, BytesView password) {
    Bytes frame;
    JuteWriter out(frame);
    out.i32(0), out.i64(0), out.i32(6000), out.i64(static_cast<std::int64_t>(session));
    out.bytes(password), out.boolean(false);
    return framed(frame);
}

class Rig {
public:
    explicit Rig(std::uint8_t flags) {
        std::string text = "tickTime=2000\ndataDir=/nowhere\nclientPort=1\n";
        text += "4lw.commands.whitelist=ruok,srvr,stat,mntr,cons,dump,wchs,wchc,wchp,isro,srst\n";
        if ((flags & 1) != 0) text += "extendedTypesEnabled=true\n";
        if ((flags & 2) != 0) text += "reconfigEnabled=true\n";
        if ((flags & 8) != 0) text += "jute.maxbuffer=1024\n";
        expect(zkserver::ConfigReader(config_).read(text).empty(), "the configuration is good");
        coord::ReplicaOptions options;
        options.super_digest = coord::digest_id("super:fuzz");
        replica_.emplace(options, disk_);
        service_.emplace(*replica_, config_, 1);
        service_->random = [this] { return ++drawn_; };
        service_->accepts_super_for_all = (flags & 4) != 0;
        service_->super_for_all = "super:fuzz";
        turn(3);
    }
    ~Rig() { replica_.reset(); }  // before the service: what its watchers hold looks there

    void turn(unsigned times) {
        for (unsigned i = 0; i < times; i++) {
            service_->now = service_->now + coord::milliseconds(1);
            replica_->poll(service_->now, 1000);
            for (const Ticket& ticket : service_->take_touched()) {
                Connection* const connection = ticket.find();
                if (connection == nullptr) continue;
                service_->untouch(*connection);
                connection->go_on();
            }
        }
    }
    void pass(unsigned tenths) {
        for (unsigned i = 0; i < tenths; i++) {
            service_->now = service_->now + coord::milliseconds(100);
            service_->tick(service_->now);
            turn(1);
        }
    }
    // As a socket does: what is over is closed when all has been read that there was.
    Connection& connection(Place& place) {
        Connection* found = place.find();
        if (found != nullptr && found->is_over()) drop(place), found = nullptr;
        if (found == nullptr) {
            found = &service_->open("10.0.0.1", 1);
            place.ticket = found->ticket();
            place.had_session = place.has_greeted = false;
            place.in.clear(), place.zxid = 0;
        }
        return *found;
    }
    void drop(Place& place) {
        Connection* const found = place.find();
        if (found == nullptr) return;
        read(place);
        service_->close(*found);
    }
    void read(Place& place) {
        Connection* const found = place.find();
        if (found == nullptr) return;
        const Bytes bytes(found->output());
        found->sent(bytes.size());
        if (found->session()) {
            place.had_session = true;
            place.session = found->session()->id().value;
            const coord::SessionPassword password = found->session()->password();
            place.password.clear();
            coord::Writer out(place.password);
            out.u64(password.high), out.u64(password.low);
        }
        if (place.had_session) hear(place, bytes);
    }
    void end(std::array<Place, 4>& places) {
        Place good;
        connection(good).receive(greeting_of(0, Bytes(16, '\0')));
        turn(4);
        Bytes ping, get;
        JuteWriter(ping).i32(-2), JuteWriter(ping).i32(op::ping);
        JuteWriter out(get);
        out.i32(1), out.i32(op::get_data), out.bytes("/zookeeper"), out.boolean(false);
        connection(good).receive(framed(ping) + framed(get));
        turn(4);
        read(good);
        expect(good.zxid > 0 && answers_ == 2, "who behaves is answered");
        for (Place& place : places) drop(place);
        drop(good);
        turn(4);
        expect(service_->connections() == 0, "no connection is left");
        expect(service_->outstanding == 0, "nothing is counted that nobody waits for");
        expect(service_->connections_from("10.0.0.1") == 0, "nor an address");
    }

private:
    void hear(Place& place, BytesView bytes) {
        place.in += bytes;
        BytesView rest = place.in;
        answers_ = 0;
        while (!rest.empty()) {
            expect(rest.size() >= 4, "frames are sent whole");
            const std::size_t size = coord::Reader(rest).u32();
            expect(rest.size() >= 4 + size, "with their length");
            hear_frame(place, rest.substr(4, size));
            rest.remove_prefix(4 + size);
        }
        place.in.clear();
    }
    void hear_frame(Place& place, BytesView frame) {
        if (!std::exchange(place.has_greeted, true)) {
            return expect(frame.size() == 36 || frame.size() == 37, "the answer to the greeting");
        }
        JuteReader in(frame);
        const std::int32_t xid = in.i32();
        const std::int64_t zxid = in.i64();
        const std::int32_t error = in.i32();
        expect(in.ok(), "a header");
        if (xid == -1 && error == 0 && zxid == -1 && frame.size() > 16) {
            const std::int32_t type = in.i32(), state = in.i32();
            const BytesView path = in.bytes();
            const bool is_event = in.ok() && in.left() == 0 && type >= 1 && type <= 4 &&
                                  state == 3 && coord::is_valid_path(path);
            return expect(is_event, "an event");
        }
        answers_ += 1;
        expect(error <= 0 && error > -200, "an error's code");
        if (zxid <= 0) return;  // of what has none: an operation that there is not, auth
        expect(zxid >= place.zxid, "zxids do not fall");
        place.zxid = zxid;
    }

    zkserver::Config config_;
    coord::MemoryStorage disk_;
    std::optional<coord::Replica> replica_;
    std::optional<zkserver::Service> service_;
    std::uint64_t drawn_ = 0;
    std::size_t answers_ = 0;  // in what was read last
};

class Input {
public:
    explicit Input(BytesView bytes) : rest_(bytes) {}
    bool is_over() const { return rest_.empty(); }
    std::uint8_t byte() {
        if (rest_.empty()) return 0;
        const auto value = static_cast<std::uint8_t>(rest_.front());
        rest_.remove_prefix(1);
        return value;
    }
    BytesView bytes() {
        const std::size_t wanted = byte();  // first: it is of the rest, too
        const std::size_t size = (std::min)(wanted, rest_.size());
        const BytesView taken = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return taken;
    }

private:
    BytesView rest_;
};

// -------------------------------------------------------------------------------------------------
// Seeds

Bytes raw(BytesView bytes) {
    return Bytes("\0", 1) + static_cast<char>(bytes.size()) + Bytes(bytes);
}
Bytes frame(std::int32_t xid, std::int32_t type, BytesView body = {}) {
    Bytes bytes;
    JuteWriter out(bytes);
    out.i32(xid), out.i32(type);
    bytes += body;
    return Bytes("\1") + static_cast<char>(bytes.size()) + bytes;
}
Bytes command(char what, char value) { return {what, value}; }

Bytes path_and(BytesView path, BytesView rest = {}) {
    Bytes body;
    JuteWriter(body).bytes(path);
    return body + Bytes(rest);
}
Bytes number(std::int32_t value) {
    Bytes bytes;
    JuteWriter(bytes).i32(value);
    return bytes;
}
Bytes create_body(BytesView path, std::int32_t flags, std::int64_t ttl_ms = 0) {
    Bytes body = path_and(path);
    JuteWriter out(body);
    out.bytes("data"), out.count(1), out.i32(31), out.bytes("world"), out.bytes("anyone");
    out.i32(flags);
    if (ttl_ms != 0) out.i64(ttl_ms);
    return body;
}
Bytes part(std::int32_t type, BytesView body) {
    Bytes bytes;
    JuteWriter out(bytes);
    zkserver::MultiHeader{type, false, -1}.write(out);
    return bytes + Bytes(body);
}
Bytes end_of_parts() {
    Bytes bytes;
    JuteWriter out(bytes);
    zkserver::MultiHeader{-1, true, -1}.write(out);
    return bytes;
}
Bytes set_watches(std::int32_t type, std::initializer_list<BytesView> paths) {
    Bytes body;
    JuteWriter out(body);
    out.i64(1);
    for (std::size_t list = 0; list < (type == op::set_watches ? 3u : 5u); list++) {
        out.count(paths.size());
        for (const BytesView path : paths) out.bytes(path);
    }
    return body;
}

const Bytes polls = command(2, 4), reads = command(7, 0).substr(0, 1);

Bytes all_reads() {
    Bytes bytes;
    const Bytes yes(1, '\1');
    std::int32_t xid = 10;
    for (const std::int32_t type : {op::exists, op::get_data, op::get_children,
                                    op::get_children2}) {
        bytes += frame(xid++, type, path_and("/a", yes));
        bytes += frame(xid++, type, path_and("/b", yes));
    }
    for (const std::int32_t type : {op::get_acl, op::sync, op::get_ephemerals,
                                    op::get_all_children_number}) {
        bytes += frame(xid++, type, path_and("/a"));
    }
    bytes += frame(xid++, op::who_am_i);
    bytes += frame(-2, op::ping);
    bytes += frame(xid, op::multi_read, part(op::get_data, path_and("/a", yes)) +
                                            part(op::get_children, path_and("/x", yes)) +
                                            end_of_parts());
    return bytes;
}

}  // namespace

std::vector<Bytes> fuzz::seeds() {
    const Bytes opened = command(6, 0) + polls;
    const Bytes write = frame(1, op::create, create_body("/a", 0)) +
                        frame(2, op::create2, create_body("/a/s", 3)) +
                        frame(3, op::set_data, path_and("/a", path_and("x", number(-1)))) +
                        frame(4, op::create_ttl, create_body("/a/t", 5, 1000)) +
                        frame(5, op::create_container, create_body("/c", 4)) +
                        frame(6, op::remove, path_and("/c", number(-1)));
    const Bytes multi = frame(7, op::multi,
                              part(op::create, create_body("/m", 0)) +
                                  part(op::check_version, path_and("/a", number(0))) +
                                  part(op::set_data, path_and("/a", path_and("", number(3)))) +
                                  end_of_parts());
    const Bytes watches = frame(8, op::add_watch, path_and("/a", number(1))) +
                          frame(9, op::check_watches, path_and("/a", number(3))) +
                          frame(-8, op::set_watches2, set_watches(op::set_watches2, {"/a", "/n"})) +
                          frame(-8, op::set_watches, set_watches(op::set_watches, {"/a"})) +
                          frame(10, op::remove_watches, path_and("/a", number(3)));
    Bytes auth = number(0), reconfig;
    JuteWriter(auth).bytes("digest"), JuteWriter(auth).bytes("super:fuzz");
    JuteWriter out(reconfig);
    out.bytes("server.2=h:1:2;3"), out.bytes("1"), out.bytes(coord::null_data), out.i64(-1);
    const Bytes asks = frame(-4, op::auth, auth) + frame(11, op::reconfig, reconfig) +
                       frame(12, 4711) + frame(13, op::close_session);
    const Bytes other = command(4, 1) + command(6, 0) + polls + all_reads() + polls + command(4, 0);
    return {
        Bytes(1, '\1') + opened + write + polls + reads + all_reads() + polls + reads,
        Bytes(1, '\1') + opened + other + write + multi + polls + command(4, 1) + reads,
        Bytes(1, '\4') + opened + write + watches + polls + write + polls + reads,
        Bytes(1, '\2') + opened + asks + polls + reads,
        Bytes(1, '\0') + opened + reads + Bytes("\5") + command(6, 1) + polls + command(3, 70),
        Bytes(1, '\0') + opened + write + polls + command(4, 1) + command(6, 1) + polls + reads,
        Bytes(1, '\x8') + opened + raw("\xff\xff\xff\xff") + polls + raw("mntr") + reads,
        Bytes(1, '\0') + raw("stat") + reads + raw("wchc") + reads + opened,
    };
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input in(fuzz::view(data, size));
    Rig rig(in.byte());
    std::array<Place, 4> places;
    std::size_t here = 0;
    for (unsigned commands = 0; !in.is_over() && commands < 400; commands++) {
        Place& place = places[here];
        switch (in.byte() % 8) {
            case 0: rig.connection(place).receive(in.bytes()); break;
            case 1: rig.connection(place).receive(framed(in.bytes())); break;
            case 2: rig.turn(in.byte() % 8); break;
            case 3: rig.pass(in.byte()); break;
            case 4: here = in.byte() % places.size(); break;
            case 5: rig.drop(place); break;
            case 6: {
                const bool is_known = in.byte() != 0;
                const Bytes zeros(16, '\0');
                rig.connection(place).receive(is_known
                                                  ? greeting_of(place.session, place.password)
                                                  : greeting_of(0, zeros));
                break;
            }
            default: rig.read(place); break;
        }
    }
    rig.turn(2);
    rig.end(places);
    return 0;
}
