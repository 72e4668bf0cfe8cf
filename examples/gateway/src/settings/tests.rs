use super::*;

fn parse(words: &str) -> Result<Command, String> {
    Command::parse(words.split_whitespace().map(str::to_owned), |_| None)
}

fn settings(words: &str) -> Settings {
    match parse(words) {
        Ok(Command::Serve(settings)) => settings,
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn flags() {
    let all = settings(
        "--upstream https://api.example.com/v1/ --upstream=/b=http://b.example:81 --listen [::1]:0 --admin 127.0.0.1:9 \
         --fallback http://c.example --quota 15/30s --max-wait=5s --timeout 1min --retries 0 --max-connections 7 \
         --rollout 50 --ca roots.pem",
    );
    assert_eq!(all.upstreams[0].path, "/b", "the longest path comes first");
    assert_eq!(all.upstreams[1].to, "https://api.example.com/v1");
    assert_eq!(all.quota, Some(Quota::new(15, Duration::from_secs(30)).unwrap()));
    assert_eq!((all.max_wait, all.timeout), (Duration::from_secs(5), Duration::from_secs(60)));
    assert_eq!((all.retries, all.max_connections, all.rollout.get()), (0, 7, 50));
    assert_eq!(quota("500/min"), Ok(Quota::new(500, Duration::from_secs(60)).unwrap()));
    assert!(matches!(parse("--upstream http://a --help"), Ok(Command::Help)));
}

#[test]
fn nothing_said_is_a_demonstration() {
    assert!(matches!(parse(""), Ok(Command::Demo(settings)) if settings.upstreams.is_empty()));
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("--quota 5/s", "--upstream: needed"),
        ("--upstream", "--upstream: needs a value"),
        ("--upstream example.com", "--upstream: must begin with http"),
        ("--upstream ftp://example.com", "--upstream: must begin with http"),
        ("--upstream http://", "--upstream: must be a URL"),
        ("--upstream http://:80", "--upstream: must name a host"),
        ("--upstream http://me:secret@example.com", "--upstream: must not hold a user name"),
        ("--upstream http://example.com/?a=b", "--upstream: must not have a query"),
        ("--upstream /a", "--upstream: after a path"),
        ("--upstream /=http://a", "--upstream: the path must be like"),
        ("--upstream /a/../b=http://a", "--upstream: the path must be like"),
        ("--upstream /-/a=http://a", "--upstream: paths below /-/"),
        ("--upstream http://a --upstream http://b", "--upstream: two for all paths"),
        ("--upstream http://a --fallback http://a/b", "--fallback: is the host of an --upstream"),
        ("--upstream http://a --listen 8080", "--listen: must be an address"),
        ("--upstream http://a --quota 15", "--quota: must be calls per time"),
        (
            "--upstream http://a --quota 0/min",
            "--quota: must be calls per time, such as 500/min or 15/30s; the calls",
        ),
        (
            "--upstream http://a --quota 5/fortnight",
            "--quota: must be calls per time, such as 500/min or 15/30s; the time",
        ),
        (
            "--upstream http://a --quota 5/0s",
            "--quota: must be calls per time, such as 500/min or 15/30s; the time",
        ),
        ("--upstream http://a --max-wait soon", "--max-wait: must be a time"),
        ("--upstream http://a --retries 1000", "--retries: must be a whole number from 0 to 100"),
        ("--upstream http://a --rollout 101", "--rollout:"),
        ("--quiet", "--quiet: no such flag"),
    ];
    for (words, problem) in cases {
        let error = parse(words).unwrap_err();
        assert!(error.starts_with(problem), "{words}: {error}");
        assert!(!error.contains("secret"), "{words}: {error}");
    }
}

#[test]
fn the_environment_holds_the_secrets_and_the_rollout() {
    let with = |name: &'static str, value: &'static str, words: &str| {
        let variable = move |asked: &str| (asked == name).then(|| value.to_owned());
        Command::parse(words.split_whitespace().map(str::to_owned), variable)
    };
    let words = "--upstream http://a --fallback http://b";
    let Ok(Command::Serve(settings)) = with(FALLBACK_AUTHORIZATION, "Bearer x", words) else { panic!() };
    assert!(settings.fallback_authorization.is_some_and(|field| field.is_sensitive() && field == "Bearer x"));
    let Ok(Command::Serve(settings)) = with(TOKEN, "t", words) else { panic!() };
    assert_eq!(settings.token.as_ref().map(Token::as_str), Some("t"));
    let Ok(Command::Serve(settings)) = with(ROLLOUT_VARIABLE, "10", words) else { panic!() };
    assert_eq!(settings.rollout.get(), 10);
    let flag = format!("{words} --rollout 20");
    let Ok(Command::Serve(settings)) = with(ROLLOUT_VARIABLE, "10", &flag) else { panic!() };
    assert_eq!(settings.rollout.get(), 20, "the flag goes before");
    for (name, value, words) in [
        (ROLLOUT_VARIABLE, "many", words),
        (TOKEN, " ", words),
        (FALLBACK_AUTHORIZATION, "Bearer x\n", words),
        (FALLBACK_AUTHORIZATION, "Bearer x", "--upstream http://a"),
    ] {
        assert!(with(name, value, words).unwrap_err().starts_with(name));
    }
}
