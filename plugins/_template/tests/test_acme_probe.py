import heddle_registry_acme

from heddle_registry.testing.probe_kit import Case, command, hook, probe_contract

TestAcme = probe_contract(
    heddle_registry_acme,
    [
        Case(
            "its hook says who it is",
            hook("acme", "start", {"session": "s1", "model": "acme-1"}),
            actor="acme:session:s1",
            parent="",
            model="acme-1",
        ),
        Case(
            "a command below it has its session",
            command(
                {"ACME_AGENT": "1", "ACME_SESSION": "s1"},
                argv=[["make", "test"], ["/opt/bin/acme", "run"], ["/sbin/init"]],
            ),
            actor="acme:session:s1",
        ),
        Case(
            "a sub-agent is its parent's child",
            hook("acme", "spawn", {"session": "s2", "parent": "s1"}),
            actor="acme:session:s2",
            parent="acme:session:s1",
        ),
    ],
)
