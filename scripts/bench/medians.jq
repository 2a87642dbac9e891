# From one object a run to one object a target and job, in the order they first ran.
def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def tenth: . * 10 | round / 10;

(reduce .[] as $r ([]; if index([[$r.job, $r.target]]) then . else . + [[$r.job, $r.target]] end)) as $order
| . as $runs
| [$order[] as [$job, $target]
    | [$runs[] | select(.job == $job and .target == $target)]
    | {
        $target,
        $job,
        iops: (map(.iops) | median | tenth),
        mean_us: (map(.mean_us) | median | tenth),
        p99_us: (map(.p99_us) | median | tenth),
        spread: ((map(.iops) | max - min) / (map(.iops) | median))
      }]
