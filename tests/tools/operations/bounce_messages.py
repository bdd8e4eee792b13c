"""Delivery status notifications in the formats of several mail servers.

``MAIL`` stands for the Message-ID of the mail.  Names and addresses are examples.
"""

from __future__ import annotations

POSTFIX_FAILED = """\
Return-Path: <>
Received: by mx.relay.example (Postfix) id 4Z1x2y3z; Sun, 29 Nov 2026 10:00:02 +0900 (KST)
Date: Sun, 29 Nov 2026 10:00:02 +0900 (KST)
From: MAILER-DAEMON@mx.relay.example (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: no-reply@shop.kr
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="4Z1x2y3w.1795914002/mx.relay.example"
Content-Transfer-Encoding: 8bit
Message-Id: <4Z1x2y3z@mx.relay.example>

This is a MIME-encapsulated message.

--4Z1x2y3w.1795914002/mx.relay.example
Content-Description: Notification
Content-Type: text/plain; charset=utf-8

This is the mail system at host mx.relay.example.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

                   The mail system

<kim@test.kr>: host mx.test.kr[192.0.2.25] said: 550 5.1.1 <kim@test.kr>:
    Recipient address rejected: User unknown (in reply to RCPT TO command)

--4Z1x2y3w.1795914002/mx.relay.example
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.relay.example
X-Postfix-Queue-ID: 4Z1x2y3w
X-Postfix-Sender: rfc822; no-reply@shop.kr
Arrival-Date: Sun, 29 Nov 2026 10:00:01 +0900 (KST)

Final-Recipient: rfc822; kim@test.kr
Original-Recipient: rfc822;kim@test.kr
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.test.kr
Diagnostic-Code: smtp; 550 5.1.1 <kim@test.kr>: Recipient address rejected:
    User unknown

--4Z1x2y3w.1795914002/mx.relay.example
Content-Description: Undelivered Message
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Return-Path: <no-reply@shop.kr>
From: =?utf-8?b?7IOB7KCQ?= <no-reply@shop.kr>
To: kim@test.kr
Message-ID: MAIL
MIME-Version: 1.0
Content-Type: text/plain; charset="utf-8"

주문이 결제되었습니다.

--4Z1x2y3w.1795914002/mx.relay.example--
"""

POSTFIX_DELAYED = """\
Return-Path: <>
From: MAILER-DAEMON@mx.relay.example (Mail Delivery System)
Subject: Delayed Mail (still being retried)
To: no-reply@shop.kr
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="4Z.1/mx"
Message-Id: <4Z1x2y40@mx.relay.example>

--4Z.1/mx
Content-Type: text/plain; charset=us-ascii

####################################################################
# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #
####################################################################

--4Z.1/mx
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.relay.example
X-Postfix-Queue-ID: 4Z1x2y3w
Arrival-Date: Sun, 29 Nov 2026 10:00:01 +0900 (KST)

Final-Recipient: rfc822; kim@test.kr
Action: delayed
Status: 4.4.1
Diagnostic-Code: X-Postfix; connect to mx.test.kr[192.0.2.25]:25: Connection
    timed out
Will-Retry-Until: Fri,  4 Dec 2026 10:00:01 +0900 (KST)

--4Z.1/mx
Content-Description: Undelivered Message Headers
Content-Type: text/rfc822-headers

From: no-reply@shop.kr
To: kim@test.kr
Message-ID: MAIL

--4Z.1/mx--
"""

# Its queue gave the mail up after five days: a temporary code, and no further attempt.
POSTFIX_EXPIRED = POSTFIX_DELAYED.replace("Action: delayed", "Action: failed")

EXIM = """\
Return-path: <>
X-Failed-Recipients: kim@test.kr
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@mail.relay.example>
To: no-reply@shop.kr
References: MAIL
Content-Type: multipart/report; report-type=delivery-status; boundary=1795914002-eximdsn-42
MIME-Version: 1.0
Subject: Mail delivery failed: returning message to sender
Message-Id: <E1vPxyz-0001aB-2c@mail.relay.example>

--1795914002-eximdsn-42
Content-type: text/plain; charset=us-ascii

This message was created automatically by mail delivery software.

  kim@test.kr
    host mx.test.kr [192.0.2.25]
    SMTP error from remote mail server after RCPT TO:<kim@test.kr>:
    550 No such user here

--1795914002-eximdsn-42
Content-type: message/delivery-status

Reporting-MTA: dns; mail.relay.example

Action: failed
Final-Recipient: rfc822;kim@test.kr
Status: 5.0.0
Remote-MTA: dns; mx.test.kr
Diagnostic-Code: smtp; 550 No such user here

--1795914002-eximdsn-42
Content-type: text/rfc822-headers

Return-path: <no-reply@shop.kr>
Message-ID: MAIL
From: no-reply@shop.kr

--1795914002-eximdsn-42--
"""

SENDMAIL = """\
Received: from localhost (localhost) by mail.relay.example (8.18.1/8.18.1) id 6AT102Xy020295;
\tSun, 29 Nov 2026 10:00:02 +0900
From: Mail Delivery Subsystem <MAILER-DAEMON@mail.relay.example>
Message-Id: <202611290100.6AT102Xy020295@mail.relay.example>
To: <no-reply@shop.kr>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="6AT102Xy020295.1795914002/mail.relay.example"
Subject: Returned mail: see transcript for details
Auto-Submitted: auto-generated (failure)

This is a MIME-encapsulated message

--6AT102Xy020295.1795914002/mail.relay.example

   ----- The following addresses had permanent fatal errors -----
<kim@test.kr>
    (reason: 552 5.2.2 <kim@test.kr>... Mailbox full)

--6AT102Xy020295.1795914002/mail.relay.example
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.relay.example
Received-From-MTA: DNS; shop.kr
Arrival-Date: Sun, 29 Nov 2026 10:00:01 +0900

Final-Recipient: RFC822; kim@test.kr
Action: failed
Status: 5.2.2
Remote-MTA: DNS; mx.test.kr
Diagnostic-Code: SMTP; 552 5.2.2 <kim@test.kr>... Mailbox full
Last-Attempt-Date: Sun, 29 Nov 2026 10:00:02 +0900

--6AT102Xy020295.1795914002/mail.relay.example
Content-Type: message/rfc822

Return-Path: <no-reply@shop.kr>
From: no-reply@shop.kr
Message-Id: MAIL
To: kim@test.kr

text

--6AT102Xy020295.1795914002/mail.relay.example--
"""

EXCHANGE_ONLINE = """\
From: Microsoft Outlook <postmaster@tenant.example>
To: <no-reply@shop.kr>
Date: Sun, 29 Nov 2026 01:00:02 +0000
Content-Type: multipart/report; report-type=delivery-status;
 boundary="a0e06538-c0ba-473f-96b1-9889575257a2"
Content-Language: en-US
Message-ID: <a4037638-4548-475c-bfed-f01b2a639800@SLXP216MB0001.KORP216.PROD.OUTLOOK.COM>
In-Reply-To: MAIL
References: MAIL
Subject: Undeliverable:
Auto-Submitted: auto-replied
MIME-Version: 1.0

--a0e06538-c0ba-473f-96b1-9889575257a2
Content-Type: multipart/alternative; differences=Content-Type;
 boundary="1eebb6f1-0990-4775-a95e-f383514cf5ce"

--1eebb6f1-0990-4775-a95e-f383514cf5ce
Content-Type: text/plain; charset="us-ascii"
Content-Transfer-Encoding: quoted-printable

Your message to kim@test.kr couldn't be delivered.

--1eebb6f1-0990-4775-a95e-f383514cf5ce
Content-Type: text/html; charset="us-ascii"

<html><body>Your message couldn't be delivered.</body></html>

--1eebb6f1-0990-4775-a95e-f383514cf5ce--

--a0e06538-c0ba-473f-96b1-9889575257a2
Content-Type: message/delivery-status

Reporting-MTA: dns;SLXP216MB0001.KORP216.PROD.OUTLOOK.COM
Received-From-MTA: dns;SLXP216MB0002.KORP216.PROD.OUTLOOK.COM
Arrival-Date: Sun, 29 Nov 2026 01:00:01 +0000

Final-Recipient: rfc822;kim@test.kr
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found
X-Display-Name: kim@test.kr

--a0e06538-c0ba-473f-96b1-9889575257a2
Content-Type: message/rfc822

From: <no-reply@shop.kr>
To: "kim@test.kr" <kim@test.kr>
Message-ID: MAIL

--a0e06538-c0ba-473f-96b1-9889575257a2--
"""

# The mail is not returned, and its name is in the report's own header fields.
EXCHANGE_WITHOUT_MAIL = EXCHANGE_ONLINE.replace(
    """--a0e06538-c0ba-473f-96b1-9889575257a2
Content-Type: message/rfc822

From: <no-reply@shop.kr>
To: "kim@test.kr" <kim@test.kr>
Message-ID: MAIL

""",
    "",
)

GMAIL = """\
Return-Path: <>
Content-Type: multipart/report; boundary="000000000000ca2d9205f5a5444d"; report-type=delivery-status
To: no-reply@shop.kr
Auto-Submitted: auto-replied
Message-ID: <63fc15e0.050a0220.58de0.183e.GMR@mx.google.com>
Date: Sat, 28 Nov 2026 17:00:02 -0800 (PST)
From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
Subject: Delivery Status Notification (Failure)
In-Reply-To: MAIL
References: MAIL
X-Failed-Recipients: kim@test.kr

--000000000000ca2d9205f5a5444d
Content-Type: multipart/related; boundary="000000000000ca332c05f5a5444e"

--000000000000ca332c05f5a5444e
Content-Type: multipart/alternative; boundary="000000000000ca333105f5a5444f"

--000000000000ca333105f5a5444f
Content-Type: text/plain; charset="UTF-8"

** Address not found **

--000000000000ca333105f5a5444f--

--000000000000ca332c05f5a5444e
Content-Type: image/png; name="icon.png"
Content-Disposition: attachment; filename="icon.png"
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--000000000000ca332c05f5a5444e--

--000000000000ca2d9205f5a5444d
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.com
Arrival-Date: Sat, 28 Nov 2026 17:00:01 -0800 (PST)
X-Original-Message-ID: MAIL

Final-Recipient: rfc822; kim@test.kr
Action: failed
Status: 5.1.1
Remote-MTA: dns; gmail-smtp-in.l.google.com. (192.0.2.27, the server for the domain.)
Diagnostic-Code: smtp; 550-5.1.1 The email account that you tried to reach does not exist.
Last-Attempt-Date: Sat, 28 Nov 2026 17:00:02 -0800 (PST)

--000000000000ca2d9205f5a5444d
Content-Type: message/rfc822

From: no-reply@shop.kr
Message-ID: MAIL

----- Message truncated -----

--000000000000ca2d9205f5a5444d--
"""

# It replaces the Message-ID of each mail; an envelope id is all that remains.
REPLACING_RELAY = """\
Message-Id: <0100019348d84a95-000000@email.relay.example>
To: no-reply@shop.kr
From: MAILER-DAEMON@email-bounces.relay.example
Subject: Delivery Status Notification (Failure)
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="Q2nkU.4hfQok6YM"

--Q2nkU.4hfQok6YM
content-type: text/plain;
    charset="utf-8"
Content-Transfer-Encoding: quoted-printable

The following message to <kim@test.kr> was undeliverable.

--Q2nkU.4hfQok6YM
content-type: message/delivery-status

Reporting-MTA: dns; a192-79.smtp-out.relay.example
Original-Envelope-Id: ENVELOPE

Final-Recipient: rfc822;kim@test.kr
Action: failed
Status: 5.0.0 (permanent failure)
Remote-MTA: dns; [192.0.2.222]
Diagnostic-Code: smtp; 5.1.0 - Unknown address error (delivery attempts: 0)

--Q2nkU.4hfQok6YM
content-type: message/rfc822

Message-ID: <0100019348d6ca0c-000000@email.relay.example>
From: no-reply@shop.kr

text

--Q2nkU.4hfQok6YM--
"""

ALIAS_OF_SEVERAL = POSTFIX_FAILED.replace(
    "Final-Recipient: rfc822; kim@test.kr",
    "Final-Recipient: rfc822; first@test.kr\nAction: delivered\nStatus: 2.0.0\n\n"
    "Final-Recipient: rfc822; second@test.kr\nAction: delayed\nStatus: 4.2.0\n\n"
    "Final-Recipient: rfc822; kim@test.kr",
)

DELIVERED = POSTFIX_FAILED.replace("Action: failed", "Action: delivered").replace(
    "Status: 5.1.1", "Status: 2.1.5"
)

OUT_OF_OFFICE = """\
From: kim@test.kr
To: no-reply@shop.kr
In-Reply-To: MAIL
Subject: Out of office
Auto-Submitted: auto-replied

I am back on Monday.
"""

READ_RECEIPT = """\
From: kim@test.kr
To: no-reply@shop.kr
MIME-Version: 1.0
Content-Type: multipart/report; report-type=disposition-notification; boundary="b"

--b
Content-Type: message/disposition-notification

Final-Recipient: rfc822; kim@test.kr
Original-Message-ID: MAIL
Disposition: manual-action/MDN-sent-manually; displayed

--b--
"""

BY_SERVER = {
    "Postfix": (POSTFIX_FAILED, "FAILED", "5.1.1"),
    "Postfix, delayed": (POSTFIX_DELAYED, "DELAYED", "4.4.1"),
    "Postfix, given up": (POSTFIX_EXPIRED, "FAILED", "4.4.1"),
    "Exim": (EXIM, "FAILED", "5.0.0"),
    "Sendmail": (SENDMAIL, "FAILED", "5.2.2"),
    "Exchange Online": (EXCHANGE_ONLINE, "FAILED", "5.1.10"),
    "Exchange without the mail": (EXCHANGE_WITHOUT_MAIL, "FAILED", "5.1.10"),
    "Gmail": (GMAIL, "FAILED", "5.1.1"),
    "relay that replaces Message-IDs": (REPLACING_RELAY, "FAILED", "5.0.0"),
    "alias of several recipients": (ALIAS_OF_SEVERAL, "FAILED", "5.1.1"),
}
