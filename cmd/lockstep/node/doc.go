// Package node is the process lockstep node: it joins a node's part in the raft group
// (control) and in its volumes (host) with NBD, on one node port (port), and answers
// the admin API.
//
//	NBD clients ---> nbd.Server --Find--> catalog --Attach--> host.Seat, forward.Front
//	                                                               |
//	other nodes <--> port.Splitter -- raft ---------> control.Control
//	                               -- replication --> host.Seat    |
//	                               -- forward ------> host.Seat    |
//	                               -- HTTP -----+                  |
//	admin.sock, --admin-tcp -- HTTP ------------+--> handler ------+
//
// # Exports
//
// Every volume of the cluster is an NBD export of every node, whoever is primary:
//
//	NAME          the volume of that name
//	NAME@CLIENT   the same, for a client that may move between nodes: where it attaches
//	              last is the only place that may still write for it
//	NAME@CLIENT~AGENT.STAY[n]
//	              the same, for a client that goes from node to node by itself (lockstep
//	              attach): AGENT is 16 hexadecimal digits, random at its start, STAY counts
//	              its attempts, n says that none has come to anything yet. What attaches
//	              with the same STAY shares a session; a later one ends the earlier ones. A
//	              name that another AGENT has is given to one with n; without, it gets
//	              ERR_UNKNOWN: it was superseded.
//	              (the empty name: the volume, if there is only one)
//
// # Admin API
//
// HTTP/1.1 with JSON, on DATA/admin.sock (mode 0600), on the node port, and on
// --admin-tcp. Every node answers everything: commands go to the leader of the group,
// and what only the primary's node can do is passed on to that. Names are as in the
// command line; sizes and offsets are bytes. An answer that is not 200 is
// {"error": "..."}: 400 it was asked wrongly, 404 there is no such thing, 409 it cannot
// be done as things are, 502 and 503 it cannot be done now.
//
//	GET    /status[?volume=V]            api.Status: nodes, leader, and how each volume stands
//	GET    /events[?volume=V&after=N&wait=30s]
//	                                     [control.Event], the oldest first; with wait it
//	                                     waits for one, at most a minute
//	GET    /healthz                      api.Health; 503 if it is not well here
//	GET    /metrics                      for Prometheus
//	GET    /nodes                        api.Members, by the leader if that can be asked
//	DELETE /nodes/N                      {name: control.Node}, what is so now; likewise:
//	POST   /nodes/N/promote              N gets a vote
//	POST   /nodes/N/demote               N loses its vote
//	GET    /volumes                      [control.Volume], by name
//	POST   /volumes                      api.Create -> control.Volume
//	GET    /volumes/V                    control.Volume; what follows answers with it too:
//	DELETE /volumes/V                    with every copy
//	PUT    /volumes/V/size               api.Resize: it can only grow
//	PUT    /volumes/V/policy             control.Policy; an empty field stays as it is
//	POST   /volumes/V/replicas           api.Place: that node gets a copy
//	PUT    /volumes/V/replicas/N         api.Place: that node gets one instead of N
//	DELETE /volumes/V/replicas/N         N's copy is given up
//	GET    /volumes/V/standing           mirror.Status, by the primary
//	POST   /volumes/V/handover           api.Handover -> api.Moved, when the other leads
//	POST   /volumes/V/failover           api.Failover -> api.Moved; 409 says what would be lost
//	POST   /volumes/V/verify[?repair=true]
//	                                     lines of api.VerifyLine, the last with the result;
//	                                     it ends when the client goes away
//	*      /control/...                  what nodes say to each other (package control)
//
// Whoever reaches the node port can do all of that, so it belongs on a network of its
// own.
//
// # Stopping
//
//  1. NBD clients: nothing new is read, what is in flight is answered (5 s)
//  2. what is led here is handed over; every store is closed in good order
//  3. connections of other nodes end, then the node's part in the group
package node
