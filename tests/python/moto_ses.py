#!/usr/bin/env python3
"""moto's server for SES on a free loopback port, which checks signatures and permissions as AWS does.

    moto_ses.py --region REGION --verify ADDRESS

Prints one JSON line when it listens: {"port", "user", "session", "powerless"}. The last three are credentials with
"access_key" and "secret_key", those of the session with a "token" too; only the powerless ones may not send. Every line on
standard input is answered by one: the mails that it has taken, [{"source", "destinations", "raw"}]. Ends with its input.
"""

import argparse
import json
import logging
import sys

import boto3
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import ThreadedMotoServer
from moto.ses.models import ses_backends

ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ses:*", "Resource": "*"}]}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--region", required=True)
    parser.add_argument("--verify", required=True)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    url = f"http://127.0.0.1:{port}"
    said = {"port": port, **set_up(url, options)}
    # From here on every request has to be signed by somebody who may.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    print(json.dumps(said), flush=True)
    for _ in sys.stdin:
        taken = ses_backends[DEFAULT_ACCOUNT_ID][options.region].sent_messages
        mails = [{"source": m.source, "destinations": m.destinations, "raw": m.raw_data} for m in taken]
        print(json.dumps(mails), flush=True)
    server.stop()


def set_up(url, options):
    def client(service):
        return boto3.client(
            service,
            region_name=options.region,
            endpoint_url=url,
            aws_access_key_id="setup",
            aws_secret_access_key="setup",
        )

    client("ses").verify_email_identity(EmailAddress=options.verify)
    iam = client("iam")

    def user(name):
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}

    users = {"user": user("sender"), "powerless": user("nobody")}
    iam.put_user_policy(UserName="sender", PolicyName="send", PolicyDocument=json.dumps(ALLOW))
    role = iam.create_role(RoleName="sender", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
    iam.put_role_policy(RoleName="sender", PolicyName="send", PolicyDocument=json.dumps(ALLOW))
    assumed = client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
    session = {
        "access_key": assumed["AccessKeyId"],
        "secret_key": assumed["SecretAccessKey"],
        "token": assumed["SessionToken"],
    }
    return {**users, "session": session}


if __name__ == "__main__":
    main()
