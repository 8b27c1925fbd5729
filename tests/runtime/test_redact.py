"""Nothing that a user may have typed as a secret is printed, however odd the URL."""

from itertools import product

import pytest

from edge_ad_runtime import CameraError, EdgeAdError, open_source
from edge_ad_runtime.errors import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://host/cam", "rtsp://host/cam"),
        ("rtsp://host:554/cam", "rtsp://host:554/cam"),
        ("rtsp://[::1]:554/cam", "rtsp://[::1]:554/cam"),
        ("rtsp://user:pass@host:554/cam", "rtsp://***@host:554/cam"),
        ("rtsp://user@host/cam", "rtsp://***@host/cam"),
        ("rtsp://user:p@ss/w@host/cam", "rtsp://***@host/cam"),
        ("rtsp://user:pass word@host/cam", "rtsp://***@host/cam"),
        ("rtsp:/user:pw@host/cam", "rtsp:/***@host/cam"),
        ("rtsp:user:pw@host/cam", "***@host/cam"),
        ("user:pw@host/cam", "***@host/cam"),
        (":pw@host/cam", "***@host/cam"),
        ("htps://user:pw@host/cam", "htps://***@host/cam"),
        ("rtsp//user:pw@host/cam", "rtsp//***@host/cam"),
        ("rtsp ://user:pw@host/cam", "rtsp ://***@host/cam"),
        ("rtsp;//user:pw@host/cam", "rtsp;//***@host/cam"),
        ("//user:p w@host/cam", "//***@host/cam"),
        ("http://host/a?form[password]=x&fps=5", "http://host/a?form[password]=***&fps=5"),
        ("http://host/a?pass%77ord%3Dx&fps=5", "http://host/a?pass%77ord%3D***&fps=5"),
        ("http://host/a?password:x&fps=5", "http://host/a?password:***&fps=5"),
        ("it has no key: choose another file", None),
        ("rtsp:\\\\user:pw@host/cam", "rtsp:\\\\***@host/cam"),
        ("rtsp:///user:pw@host/cam", "rtsp:///***@host/cam"),
        ("rtsp://user:secret/cam", "rtsp://***/cam"),
        ("http://host/a?user=me&pwd=x&fps=5", "http://host/a?user=***&pwd=***&fps=5"),
        ("http://host/a?pw=x", "http://host/a?pw=***"),
        ("http://host/a?fps=5&password=a b&size=2", "http://host/a?fps=5&password=***&size=2"),
        ("http://host/a?access_token=x", "http://host/a?access_token=***"),
        ("http://host/a#token=x", "http://host/a#token=***"),
        ("http://host/a?id=0123456789abcdef0123", "http://host/a?id=***"),
        ("rtsp://h:554/user=a_password=b_channel=1.sdp", "rtsp://h:554/user=***"),
        ("cannot open rtsp://u:p@h/a now", "cannot open rtsp://***@h/a now"),
        (
            'rtspsrc location=rtsp://h/a user-id=me user-pw="a b" ! decodebin ! appsink',
            "rtspsrc location=rtsp://h/a user-id=*** ! decodebin ! appsink",
        ),
        ("parts/*.png", "parts/*.png"),
        ("/data/parts@home/x.png", "/data/parts@home/x.png"),
        ("C:\\parts@home\\x.png", "C:\\parts@home\\x.png"),
        ("/dev/video0", "/dev/video0"),
        ("0", "0"),
        (
            "nvarguscamerasrc sensor-id=0 ! video/x-raw,width=640,framerate=30/1 ! appsink",
            "nvarguscamerasrc sensor-id=0 ! video/x-raw,width=640,framerate=30/1 ! appsink",
        ),
        ("http://host/video.mjpg?resolution=640x480&camera=1", None),
        ("basler:serial=40012", "basler:serial=40012"),
    ],
)
def test_redacts(text: str, expected: str | None) -> None:
    assert redact(text) == (expected or text)


@pytest.mark.parametrize(
    "piece", ["a", "pass", "user=", "ab://", "a:b ", "&u=a ", "x?y=" + "z" * 15]
)
def test_a_long_text_of_somebody_else_takes_no_time(piece: str) -> None:
    """A server's answer of 90 kB took a minute, in which no frame was scored."""
    text = piece * (1_000_000 // len(piece))
    assert len(redact(text)) < 3000
    assert "Zq7" not in redact("rtsp://me:Zq7" + text + "Zq7@host")


STARTS = [
    *(
        f"{scheme}:{slashes}"
        for scheme, slashes in product(
            ("rtsp", "RTSPS", "http", "https", "htps", "rstp", "h-x+1"),
            ("/", "//", "///", "\\\\", ""),
        )
    ),
    "",
    "location=rtsp://",
]
USERS = ["admin", "a.b", "", "me%40work"]
PASSWORDS = [
    "Zq7Zq7",
    "Zq7 Zq7",
    "Zq7@Zq7",
    "Zq7/Zq7",
    "Zq7?Zq7",
    "Zq7#Zq7",
    "Zq7:Zq7",
    "Zq7&Zq7",
    "é Zq7",
]
HOSTS = ["10.0.0.5", "cam.local:554/a?fps=5", "[fe80::1]/x", ""]


def urls() -> list[str]:
    return [
        f"{start}{user}:{password}@{host}"
        for start, user, password, host in product(STARTS, USERS, PASSWORDS, HOSTS)
    ]


def test_no_user_info_is_printed() -> None:
    leaked = [url for url in urls() if "Zq7" in redact(url)]
    assert leaked == []


@pytest.mark.parametrize(
    "name",
    (
        "pw pwd password pass passwd PASSWORD user usr token access_token api_key apikey X-Auth "
        "secret sig signature session credential jwt pin loginpas loginuse key sid user-pw bearer "
        "private a[pw] a[user] secret%5Fkey pswd"
    ).split(),
)
@pytest.mark.parametrize("value", ["Zq7", "Zq7 Zq7", "%5AZq7", "Zq7/Zq7=="])
@pytest.mark.parametrize(
    "query", ["?{}", "?fps=5&{}", "?{}&fps=5", ";{}", "#{}", "/{}", "/a.cgi?{}"]
)
def test_no_secret_of_a_query_is_printed(name: str, value: str, query: str) -> None:
    for base in ("http://10.0.0.5/v", "htps:/10.0.0.5/v", "10.0.0.5/v"):
        assert "Zq7" not in redact(base + query.format(f"{name}={value}"))


@pytest.mark.parametrize(
    "spec",
    [
        "rtsp:/admin:Zq7@10.0.0.5/a",
        "rtsp:admin:Zq7@10.0.0.5/a",
        "admin:Zq7@10.0.0.5/a",
        "htps://admin:Zq7@10.0.0.5/a",
        "rtsp:/admin:Zq7@10.0.0.5/*.png",
        "rtsp://admin:Z q7@[/a",
        "http:/10.0.0.5/a?pw=Zq7",
        "http://127.0.0.1:1/a?password=Zq7",
        "rtsp://admin:Zq7@127.0.0.1:1/a b",
    ],
)
@pytest.mark.parametrize("watch", [False, True])
def test_no_message_holds_a_secret(
    spec: str, watch: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EdgeAdError) as caught:
        open_source(spec, watch=watch)
    error: BaseException | None = caught.value
    assert not isinstance(error, CameraError) or "Zq7" not in str(error.__cause__)
    assert "Zq7" not in str(error) and "Z q7" not in str(error)
    assert "Zq7" not in caplog.text
