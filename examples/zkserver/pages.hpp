// What the HTTP server answers, as text: a page for a person, the state as JSON, numbers for
// Prometheus, and those of ZooKeeper's commands that are simple. All of it only looks. It shows
// paths, and no data; whoever reaches the port sees it.
//
//     /                      the page; /?path=/a is about that node
//     /state                 Replica::state_json
//     /metrics               Prometheus' text format
//     /commands              which there are; /commands/NAME is JSON
#pragma once

#include "words.hpp"

#include <string>
#include <vector>

namespace zkserver {

class Pages {
public:
    static constexpr std::size_t request_bytes_max = 8 * 1024;
    static constexpr std::size_t rows_max = 500;  // of a list

    explicit Pages(Service& service) : service_(service), replica_(service.replica) {}

    // request: all up to the empty line. RETURNS the whole answer.
    std::string answer(const std::string& request) {
        const std::size_t blank = request.find(' ');
        const std::size_t end = request.find(' ', blank + 1);
        const std::size_t line = request.find('\r');
        if (blank == std::string::npos || end == std::string::npos || end > line) {
            return whole("400 Bad Request", "text/plain", "not a request\n");
        }
        if (request.compare(0, blank, "GET") != 0) {
            return whole("405 Method Not Allowed", "text/plain", "GET alone\n");
        }
        const std::string target = request.substr(blank + 1, end - blank - 1);
        const std::size_t mark = target.find('?');
        const std::string path = target.substr(0, mark);
        const std::string query = mark == std::string::npos ? "" : target.substr(mark + 1);
        if (path == "/") return whole("200 OK", "text/html; charset=utf-8", page(query));
        if (path == "/state") return json(replica_.state_json());
        if (path == "/metrics") return whole("200 OK", "text/plain; version=0.0.4", metrics());
        if (path == "/commands" || path == "/commands/") return json(list_commands());
        if (path.compare(0, 10, "/commands/") == 0) return command(path.substr(10));
        return not_found();
    }

private:
    static std::string whole(const char* outcome, const char* type, const std::string& body) {
        return std::string("HTTP/1.1 ") + outcome + "\r\nContent-Type: " + type +
               "\r\nContent-Length: " + std::to_string(body.size()) +
               "\r\nConnection: close\r\nCache-Control: no-store\r\n"
               "X-Content-Type-Options: nosniff\r\n"
               "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n" +
               body;
    }
    static std::string json(const std::string& body) {
        return whole("200 OK", "application/json", body + "\n");
    }
    static std::string not_found() {
        return whole("404 Not Found", "text/plain", "there is no such page\n");
    }

    // ---------------------------------------------------------------------------------------------
    // JSON and numbers

    static std::string quoted(BytesView text) {
        std::string out = "\"";
        for (const char c : text) {
            const auto byte = static_cast<unsigned char>(c);
            if (c == '"' || c == '\\') {
                out += '\\', out += c;
            } else if (byte < 0x20 || byte == 0x7f) {
                print(out, "\\u%04x", static_cast<unsigned>(byte));
            } else {
                out += c;
            }
        }
        return out + "\"";
    }
    static std::string pair(const char* key, const std::string& value) {
        return "," + quoted(key) + ":" + value;
    }
    static std::string pair(const char* key, std::size_t value) {
        return pair(key, std::to_string(value));
    }
    static std::string pair(const char* key, bool value) {
        return pair(key, std::string(value ? "true" : "false"));
    }
    std::string mode() const { return Words(service_).mode(); }

    std::string metrics() const {
        std::string out;
        visit_server_metrics(service_, [&out](const ServerMetric& metric) {
            const char* const name = metric.name.c_str();
            print(out, "# HELP %s %s\n# TYPE %s %s\n", name, metric.help, name,
                  metric.is_counter ? "counter" : "gauge");
            print(out, "%s %s\n", name, number_text(metric.value).c_str());
        });
        return out;
    }

    struct Command {
        const char* name;
        const char* other;  // what it is called, too
        std::string (Pages::*body)() const;
    };
    static const std::vector<Command>& commands() {
        static const std::vector<Command> all = {
            {"configuration", "conf", &Pages::configuration},
            {"is_read_only", "isro", &Pages::is_read_only},
            {"leader", "lead", &Pages::leader},
            {"monitor", "mntr", &Pages::monitor},
            {"ruok", "ruok", &Pages::nothing},
            {"server_stats", "srvr", &Pages::server_stats},
            {"voting_view", "voting_view", &Pages::voting_view},
            {"watch_summary", "wchs", &Pages::watch_summary},
            {"zabstate", "zabstate", &Pages::zab_state},
        };
        return all;
    }
    static std::string list_commands() {
        std::string out;
        for (const Command& each : commands()) out += (out.empty() ? "" : ",") + quoted(each.name);
        return "{\"commands\":[" + out + "]}";
    }
    std::string command(const std::string& name) const {
        for (const Command& each : commands()) {
            if (name != each.name && name != each.other) continue;
            return json("{\"command\":" + quoted(each.name) + ",\"error\":null" +
                        (this->*each.body)() + "}");
        }
        return not_found();
    }
    std::string nothing() const { return ""; }
    std::string is_read_only() const { return pair("read_only", false); }
    std::string configuration() const {
        const Config& config = service_.config;
        return pair("client_port", std::to_string(config.client_port)) +
               pair("data_dir", quoted(config.data_dir)) +
               pair("data_log_dir", quoted(config.data_log_dir)) +
               pair("tick_time", std::to_string(config.tick_ms)) +
               pair("max_client_cnxns", std::to_string(config.connections_per_address)) +
               pair("min_session_timeout", std::to_string(config.timeout_min_ms())) +
               pair("max_session_timeout", std::to_string(config.timeout_max_ms())) +
               pair("server_id", std::to_string(service_.is_standalone() ? 0 : service_.my_id));
    }
    std::string leader() const {
        const coord::ReplicaStatus status = replica_.status();
        const bool leads = status.role == coord::Role::leading;
        return pair("is_leader", leads) + pair("leader_id", std::size_t{status.leader.value});
    }
    std::string monitor() const {
        std::string out = pair("version", quoted(version_text())) +
                          pair("server_state", quoted(mode()));
        visit_server_metrics(service_, [&out](const ServerMetric& metric) {
            const bool is_theirs = metric.name.compare(0, 3, "zk_") == 0;
            const std::string name = is_theirs ? metric.name.substr(3) : metric.name;
            out += pair(name.c_str(), number_text(metric.value));
        });
        return out;
    }
    std::string server_stats() const {
        char zxid[32];
        std::snprintf(zxid, sizeof zxid, "0x%llx",
                      static_cast<unsigned long long>(replica_.machine().applied().value));
        return pair("version", quoted(version_text())) + pair("server_state", quoted(mode())) +
               pair("packets_received", std::to_string(service_.counters.received)) +
               pair("packets_sent", std::to_string(service_.counters.sent)) +
               pair("num_alive_client_connections", service_.connections()) +
               pair("outstanding_requests", service_.outstanding) +
               pair("node_count", replica_.tree().size()) + pair("zxid", quoted(zxid));
    }
    std::string voting_view() const {
        std::string out;
        for (const coord::Member& member : replica_.members()) {
            if (!member.votes) continue;
            out += (out.empty() ? "" : ",") + quoted(std::to_string(member.id.value)) + ":" +
                   quoted(member.address);
        }
        return pair("current_config", "{" + out + "}");
    }
    std::string watch_summary() const {
        const coord::WatchCounts counts = replica_.count_watches();
        return pair("num_connections", counts.sessions) + pair("num_paths", counts.paths) +
               pair("num_total_watches", counts.watchers);
    }
    std::string zab_state() const {
        const coord::Role role = replica_.status().role;
        const bool votes = role == coord::Role::looking;
        return pair("voting", votes) +
               pair("zabstate", quoted(votes ? "ELECTION" : "BROADCAST"));
    }

    // ---------------------------------------------------------------------------------------------
    // The page

    static std::string shown(BytesView text) {
        std::string out;
        for (const char c : text) {
            switch (c) {
                case '&': out += "&amp;"; break;
                case '<': out += "&lt;"; break;
                case '>': out += "&gt;"; break;
                case '"': out += "&quot;"; break;
                case '\'': out += "&#39;"; break;
                default: out += c;
            }
        }
        return out;
    }
    static std::string encoded(BytesView path) {
        std::string out;
        for (const char c : path) {
            const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                  (c >= '0' && c <= '9') || c == '/' || c == '-' || c == '_' ||
                                  c == '.';
            const unsigned byte = static_cast<unsigned char>(c);
            is_plain ? static_cast<void>(out += c) : print(out, "%%%02X", byte);
        }
        return out;
    }
    static int digit(char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    }
    static std::string decoded(const std::string& text) {
        std::string out;
        for (std::size_t i = 0; i < text.size(); i++) {
            const bool is_two = text[i] == '%' && i + 2 < text.size() &&
                                digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
            if (is_two) {
                out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
                i += 2;
            } else {
                out += text[i];
            }
        }
        return out;
    }
    static void row(std::string& out, const char* name, const std::string& value) {
        out += std::string("<tr><th>") + name + "<td>" + shown(value) + "\n";
    }
    static std::string hex(std::uint64_t value) {
        std::string out;
        print(out, "0x%llx", static_cast<unsigned long long>(value));
        return out;
    }

    std::string page(const std::string& query) const {
        std::string path = query.compare(0, 5, "path=") == 0 ? decoded(query.substr(5)) : "/";
        if (!coord::is_valid_path(path)) path = "/";
        const std::string id = std::to_string(service_.my_id);
        std::string out = "<!doctype html><meta charset=utf-8><title>zkserver " + id +
                          "</title>\n<style>body{font:15px sans-serif;margin:2em;max-width:60em}"
                          "table{border-collapse:collapse}th{text-align:left;font-weight:normal;"
                          "padding-right:2em;color:#555}td{padding-right:2em}</style>\n"
                          "<h1>zkserver " + id + "</h1>\n";
        add_state(out);
        add_members(out);
        add_sessions(out);
        add_node(out, path);
        return out + "<p><a href=/state>state</a> <a href=/metrics>metrics</a> "
                     "<a href=/commands>commands</a>\n";
    }
    void add_state(std::string& out) const {
        const coord::ReplicaStatus status = replica_.status();
        out += "<table>\n";
        row(out, "role", mode() + ", " + coord::name(status.role) +
                             (status.serving ? ", serves" : ", does not serve"));
        row(out, "leader", std::to_string(status.leader.value));
        row(out, "epoch", std::to_string(status.epoch));
        row(out, "log: last", hex(status.last.value));
        row(out, "log: durable", hex(status.durable.value));
        row(out, "log: committed", hex(status.committed.value));
        row(out, "log: applied", hex(status.applied.value));
        row(out, "its storage", status.admitted ? "counts" : "does not count");
        row(out, "nodes", std::to_string(status.nodes));
        row(out, "sessions", std::to_string(status.sessions));
        row(out, "watchers here", std::to_string(status.watches));
        row(out, "clients here", std::to_string(service_.connections()));
        out += "</table>\n";
    }
    void add_members(std::string& out) const {
        out += "<h2>Members</h2>\n<table>\n";
        for (const coord::Member& member : replica_.members()) {
            row(out, std::to_string(member.id.value).c_str(),
                std::string(member.votes ? "votes " : "observes ") + member.address);
        }
        out += "</table>\n";
    }
    void add_sessions(std::string& out) const {
        out += "<h2>Sessions</h2>\n<table>\n";
        std::size_t rows = 0;
        for (const auto& session : replica_.machine().sessions()) {
            if (++rows > rows_max) break;
            row(out, hex(session.first.value).c_str(),
                std::to_string(session.second.timeout_ms) + " ms, " +
                    std::to_string(replica_.tree().owned(session.first)) + " ephemeral nodes");
        }
        out += rows > rows_max ? "</table>\n<p>and more\n" : "</table>\n";
    }
    void add_node(std::string& out, const std::string& path) const {
        out += "<h2>" + shown(path) + "</h2>\n";
        const auto node = replica_.tree().find(path);
        if (!node) return static_cast<void>(out += "<p>there is no such node\n");
        const coord::Stat& stat = node->stat;
        out += "<table>\n";
        row(out, "bytes", std::to_string(stat.data_length));
        row(out, "version", std::to_string(stat.version));
        row(out, "czxid, mzxid, pzxid", hex(stat.czxid.value) + " " + hex(stat.mzxid.value) + " " +
                                            hex(stat.pzxid.value));
        row(out, "children", std::to_string(stat.num_children));
        if (stat.ephemeral_owner.value != 0) row(out, "owner", hex(stat.ephemeral_owner.value));
        out += "</table>\n<ul>\n";
        if (path != "/") {
            const std::size_t slash = path.rfind('/');
            add_link(out, slash == 0 ? "/" : path.substr(0, slash), "..");
        }
        std::size_t rows = 0;
        replica_.tree().list(path, "", "", [&](const coord::NodeView& child) {
            if (++rows > rows_max) return false;
            add_link(out, child.path, child.path.substr(child.path.rfind('/') + 1));
            return true;
        });
        out += rows > rows_max ? "</ul>\n<p>and more\n" : "</ul>\n";
    }
    static void add_link(std::string& out, BytesView path, BytesView name) {
        out += "<li><a href=\"/?path=" + encoded(path) + "\">" + shown(name) + "</a>\n";
    }

    Service& service_;
    coord::Replica& replica_;
};

}  // namespace zkserver
