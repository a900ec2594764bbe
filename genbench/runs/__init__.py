"""From configurations to records: plan, build, execute; alone, in packs or on several processes; many at a time."""
