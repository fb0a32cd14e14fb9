"""Go's flag syntax and JSON field rules, which derper's users rely on."""
