#!/usr/bin/env escript
%% Peer: esockd itself, an echo handler on Erlang behind access rules, a limit of connections and a rate limit.
%% It needs Erlang/OTP and the folder of a compiled esockd, which nothing here sets up:
%%
%%   make bench ARGS="--also 'esockd on Erlang=escript benchmarks/peers/esockd_on_erlang.escript ESOCKD/ebin active'"
%%
%% `active`: the socket sends N messages to the process before it must be armed again, Erlang's cheapest way to receive.
%% `passive`: the process asks for each message, as most handlers are written.
%% The rules are three and not a thousand, because esockd looks at each of them in turn.

-mode(compile).
-export([start_link/3, init/3]).

-define(ADDRESS, {{127, 0, 0, 1}, 0}).
-define(MESSAGES_PER_ARMING, 100).

main([Ebin, Style]) when Style =:= "active"; Style =:= "passive" ->
    true = code:add_patha(Ebin),
    ok = logger:set_primary_config(level, error),
    {ok, _} = application:ensure_all_started(esockd),
    {ok, _} = esockd:open(echo, ?ADDRESS, [
        {acceptors, 4},
        {max_connections, 20000},
        {max_conn_rate, 1000000},
        {access_rules, [{deny, "10.0.0.0/8"}, {allow, "127.0.0.0/8"}, {deny, all}]},
        {tcp_options, [binary, {nodelay, true}, {backlog, 1024}, {buffer, 65536}]}
    ], {?MODULE, start_link, [list_to_atom(Style)]}),
    {esockd_listener, Listener} = esockd_listener_sup:listener(esockd:listener({echo, ?ADDRESS})),
    io:format("~b~n", [esockd_listener:get_port(Listener)]),
    receive stop -> ok end.

start_link(Transport, Socket, Style) ->
    {ok, spawn_link(?MODULE, init, [Transport, Socket, Style])}.

init(Transport, Waiting, Style) ->
    case {Transport:wait(Waiting), Style} of
        {{ok, Socket}, active} -> arm(Transport, Socket);
        {{ok, Socket}, passive} -> echo_passive(Transport, Socket);
        {{error, Reason}, _} -> exit({shutdown, Reason})
    end.

arm(Transport, Socket) ->
    _ = Transport:setopts(Socket, [{active, ?MESSAGES_PER_ARMING}]),
    echo_active(Transport, Socket).

echo_active(Transport, Socket) ->
    receive
        {tcp, _, Data} ->
            _ = Transport:send(Socket, Data),
            echo_active(Transport, Socket);
        {tcp_passive, _} -> arm(Transport, Socket);
        {tcp_closed, _} -> ok;
        {tcp_error, _, Reason} -> exit({shutdown, Reason})
    end.

echo_passive(Transport, Socket) ->
    case Transport:recv(Socket, 0) of
        {ok, Data} ->
            _ = Transport:send(Socket, Data),
            echo_passive(Transport, Socket);
        {error, closed} -> ok;
        {error, Reason} -> exit({shutdown, Reason})
    end.
