# Two tables of the medians, tab-separated: what was measured, with IOPS as a
# ratio to each peer's in the same run, and lockstep's figures beside their aims.
def aims: ("lockstep", "lockstep-poll") as $target | (
    {$target, job: "4k-randwrite-d1", beside: "nbdkit", of: "mean_us",
     most: (if $target == "lockstep-poll" then 1.0 else 2.5 end)},
    {$target, job: "4k-randwrite-d32", beside: "nbdkit", of: "iops", least: 0.6},
    {$target, job: "1m-write-d8", beside: "nbdkit", of: "iops", least: 0.5},
    {$target, job: ("4k-randread-d1", "4k-randread-d32"), beside: "nbdkit", of: "iops", least: 1.0},
    {$target, job: "4k-randwrite-d1", beside: "quorum", of: "iops", least: 2.0},
    {$target, job: "4k-randwrite-d32", beside: "quorum", of: "iops", least: 10.0});

def hundredth: . * 100 | round / 100;
def title: {iops: "IOPS", mean_us: "mean latency"}[.];

. as $all
| def value($target; $job; $of): [$all[] | select(.target == $target and .job == $job) | .[$of]][0];
  def times($run; $peer): value($peer; $run.job; "iops") as $iops
      | if $iops then $run.iops / $iops | hundredth else "-" end;

  def measured: ["JOB", "TARGET", "IOPS", "MEAN us", "P99 us", "SPREAD", "x nbdkit", "x quorum"],
    ($all[] | [.job, .target, (.iops | round), .mean_us, .p99_us, "\(.spread * 100 | round)%",
               times(.; "nbdkit"), times(.; "quorum")]);

  def judged: ["TARGET", "JOB", "FIGURE", "RATIO", "AIM", ""],
    (aims as $aim
      | value($aim.target; $aim.job; $aim.of) as $own
      | value($aim.beside; $aim.job; $aim.of) as $peer
      | select($own and $peer)
      | ($own / $peer) as $ratio
      | [$aim.target, $aim.job, "\($aim.of | title) to \($aim.beside)'s", ($ratio | hundredth),
         (if $aim.most then "<= \($aim.most)" else ">= \($aim.least)" end),
         (if $aim.most then $ratio <= $aim.most else $ratio >= $aim.least end | if . then "met" else "MISSED" end)]);

  if $table == "measured" then measured else judged end
| @tsv
