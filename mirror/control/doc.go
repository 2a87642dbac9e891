// Package control is the raft group that decides who may write to a volume. It holds
// no data of volumes: per volume a record of the epoch, the primary and the replicas,
// of which those in sync matter, and the nodes themselves. Every change of a record is
// a compare-and-swap on its epoch, so that of two that want to be primary one wins.
//
// # A node's life
//
//	empty directory                        raft's state is there
//	      |                                         |
//	  joining  -- all first voters are new -->  follower <-> candidate <-> leader
//	      |    -- a leader has added it ------>     |
//	      |                                      removed  -- started again --> joining
//	   failed: a voter whose directory is new
//
// Raft is safe while no voter forgets how it voted. So each directory has an identity,
// kept with raft's votes to be lost only with them, and the group knows whose is whose.
// The first start waits until all voters of the list have seen each other; a voter with
// an unknown directory is refused until it is removed, and then joins without a vote.
// Until it may take part it does not run raft at all. See decide in begin.go.
//
// The state says which nodes there are and who votes; the leader makes raft's
// configuration follow, one change at a time, new votes first. A leader that is to go
// hands the lead over, and its successor takes it out.
//
// # What a command costs
//
//	at the leader         1 round trip to the nearest majority, 1 fsync at each voter
//	at another node       1 more, to the leader: HTTP on the node's port
//	until others know     half a round trip more: an entry without meaning follows
//	renewal of a lease    1 round trip to the nearest majority, no fsync
//	leader out of reach   1 Heartbeat, and 1 round trip to a node that passes it on
//
// Raft has one request to a follower under way at a time; what comes meanwhile waits
// for that and goes together.
//
// # Formats
//
// A log entry is a byte, the version 1, and a [Command] in JSON. A snapshot is the same
// byte and a JSON object: nodes, volumes and events as in [State], clients (what the
// last command of each sender came to), applied (commands so far) and index (of the
// log). A node that meets another version refuses the entry.
//
// # Once
//
// A command carries its sender and that sender's number of it, and the state keeps
// each sender's last answer: a command that is sent again, because a leader died between
// commit and answer, is answered and not applied. 4,096 senders are remembered; one that
// was forgotten is told so, and never applied twice, save for its very first command.
//
// # Leases
//
// A primary that is alone in sync asks the leader for a lease, see [Control.Renew]. The
// leader remembers its promise a quarter longer and meanwhile holds back a command that
// would name another primary; while one waits, no lease is given. A new leader knows no
// promises, and waits as long as any could run, and a request's time. Promises are not
// in the log.
//
// # What fails
//
//	the leader dies         another in 340 ms at the mean, 600 at worst; 850 and 1,350 with a
//	                        witness 100 ms away (Heartbeat 200 ms, measured in the tests)
//	its disk stalls         no heartbeats after 2 heartbeats of one write; then as above
//	a voter dies            nothing, while a majority is there
//	a majority is gone      no command is decided; State stays as it was, and may be old
//	a command's leader dies Do asks the next, under the same number
//	ctx of Do ends          ErrUnknown: the command may yet be applied
//	a follower's link       Do and Renew ask another node, which passes it on to the leader: after
//	to the leader           a heartbeat of silence; one hop, and applied once though it comes twice
//	the leader is unknown   Do asks the others in turn, Renew all at once
//
// The lead moves, at most every 5 s, to a witness that answers within 25 ms, else to the
// near voter on which fewest volumes have their primary: when a site dies, its volumes
// then need not wait for an election. Pre-votes are arranged so that two candidates do
// not split the votes, see votes.go.
//
// # Departures
//
// There is no join request: a node that is not a member sends the command [AddNode] like
// any other. [Open] returns before the node is a member; [Control.Failed] tells if it
// cannot be. A new volume has its first node as Primary at epoch 0, which that node
// claims with epoch 1.
package control
