use std::time::Duration;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    command_line().debug_assert();
}

#[test]
fn durations_are_parsed_with_and_without_units() {
    let check =
        |text: &str, expected: Option<Duration>| assert_eq!(parse_duration(text).ok(), expected, "{text}");
    check("0s", Some(Duration::ZERO));
    check("10s", Some(Duration::from_secs(10)));
    check("2m", Some(Duration::from_secs(120)));
    check("500ms", Some(Duration::from_millis(500)));
    check("7", Some(Duration::from_secs(7)));
    for bad in ["", "soon", "-1s", "1y", "[1]"] {
        check(bad, None);
    }
}

#[test]
fn fractional_waits_are_rounded_up_to_whole_seconds() {
    let check = |millis, secs| assert_eq!(whole_seconds(Duration::from_millis(millis)), secs);
    check(0, 0);
    check(500, 1);
    check(1000, 1);
    check(1500, 2);
}

#[test]
fn usage_errors_exit_with_code_2() {
    let run = |args: &[&str]| format!("{:?}", run(args.iter().map(OsString::from)));
    assert_eq!(run(&["stormkeeper", "no-such-command"]), format!("{:?}", ExitCode::from(2)));
    assert_eq!(run(&["stormkeeper", "--version"]), format!("{:?}", ExitCode::SUCCESS));
}

/// Output of `--help` for every command.
fn reference() -> String {
    let mut text = String::from("```text\n");
    let mut command = command_line();
    command.build();
    text.push_str(&command.clone().render_help().to_string());
    for subcommand in command.get_subcommands_mut().filter(|subcommand| !subcommand.is_hide_set()) {
        if subcommand.get_name() != "help" {
            text.push_str(&format!("\n$ stormkeeper {} --help\n", subcommand.get_name()));
            text.push_str(&subcommand.render_help().to_string());
        }
    }
    text.push_str("```\n");
    text
}

#[test]
fn generated_reference() {
    stormkeeper_runtime::test_support::assert_generated("docs/commands.md", "commands", &reference());
}

#[test]
fn address_of_a_nimbus_is_taken_as_a_browser_shows_it() {
    let address = |text: &str| nimbus_address(text).map(|address| address.with_default(8080));
    assert_eq!(address("n1"), Ok("n1:8080".to_owned()));
    assert_eq!(address("http://n1:9000/"), Ok("n1:9000".to_owned()));
    assert_eq!(address("http://[fd00::1]:8080"), Ok("[fd00::1]:8080".to_owned()));
    for (text, reason) in [("ftp://n1", "'/'"), ("n1:99999", "\"99999\" is not a port"), ("n1/x", "'/'")] {
        let error = address(text).expect_err(text);
        assert!(error.contains(reason), "{error}");
    }
}
