"""Secrets with a recognizable form, such as the prefix that a provider gives its tokens.

Invariant: a secret in ``TOKENS`` is recognized after any character; one in ``WORDS`` only at the beginning of
a word, because its prefix is short.
"""

from typing import Final

TOKENS: Final[tuple[tuple[str, bytes], ...]] = (
    ("jwt", rb"eyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*){0,3}"),
    # The Base64 of '-----BEGIN ... PRIVATE KEY', as in a kubeconfig.
    ("private_key", rb"LS0tLS1CRUdJTi(?:BSU0Eg|BQUklW|BFQyBQ|BPUEVO|BFTkNS|BEU0Eg)[A-Za-z0-9+/=]{12,}"),
    # Identifiers of users, roles and groups (AIDA, AROA, AGPA) are not secret.
    (
        "aws_key",
        rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16,}|bedrock-api-key-[A-Za-z0-9+/=]{16,}|ABSK[A-Za-z0-9+/=]{80,}",
    ),
    ("google_key", rb"AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"),
    ("github_token", rb"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"),
    (
        "gitlab_token",
        rb"gl(?:pat|ptt|dt|rt|rtr|cbt|soat|ft|imt|agent|oas|ffct|wt)-[\w.-]{16,}|GR1348941[\w-]{16,}",
    ),
    ("atlassian_token", rb"AT(?:ATT|CTT|BB|STT)3?[\w=-]{24,}"),
    (
        "slack_token",
        rb"xox[a-z](?:\.xox[a-z])?-[\w-]{8,}|xapp-[\w-]{10,}"
        rb"|hooks\.slack\.com\\?/(?:services|workflows|triggers)\\?/[\w/\\]{10,}",
    ),
    (
        "webhook",
        rb"discord(?:app)?\.com\\?/api\\?/(?:v[0-9]+\\?/)?webhooks\\?/[0-9]{5,}\\?/[\w-]{20,}"
        rb"|webhook\.office\.com\\?/webhookb?2?\\?/[^\s\"'<>]{20,}"
        rb"|hooks\.zapier\.com\\?/hooks\\?/catch\\?/[\w/\\]{8,}"
        rb"|open\.(?:feishu\.cn|larksuite\.com)\\?/open-apis\\?/bot\\?/(?:v2\\?/)?hook\\?/[\w-]{16,}"
        rb"|qyapi\.weixin\.qq\.com\\?/cgi-bin\\?/webhook\\?/send\?key=[\w-]{16,}",
    ),
    ("stripe_key", rb"[rs]k_(?:live|test|prod)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{16,}"),
    ("square_token", rb"sq0(?:atp|csp|idp)-[\w-]{20,}"),
    ("paypal_token", rb"access_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[0-9a-f]{32}"),
    ("plaid_token", rb"access-(?:sandbox|development|production)-[0-9a-f-]{36}"),
    ("shopify_token", rb"shp(?:at|ss|ca|pa|ua|rt)_[A-Fa-f0-9]{24,}"),
    ("npm_token", rb"npm_[A-Za-z0-9]{30,}"),
    ("pypi_token", rb"pypi-Ag[\w-]{14,}"),
    ("rubygems_key", rb"rubygems_[0-9a-f]{32,}"),
    ("clojars_token", rb"CLOJARS_[0-9a-z]{40,}"),
    ("docker_token", rb"dckr_(?:pat|oat)_[\w-]{20,}"),
    ("huggingface_token", rb"(?:api_org|hf)_[A-Za-z0-9]{30,}"),
    ("openai_key", rb"sk-(?:proj|svcacct|admin)-[\w-]{20,}|sk-[A-Za-z0-9]{16,24}T3BlbkFJ[A-Za-z0-9]{16,}"),
    ("anthropic_key", rb"sk-ant-[\w-]{20,}"),
    ("groq_key", rb"gsk_[A-Za-z0-9]{40,}"),
    ("perplexity_key", rb"pplx-[A-Za-z0-9]{40,}"),
    ("langsmith_key", rb"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{8,}"),
    ("pinecone_key", rb"pcsk_[A-Za-z0-9_]{40,}"),
    ("sendgrid_key", rb"SG\.[\w-]{16,}\.[\w-]{16,}"),
    ("brevo_key", rb"x(?:keysib|smtpsib)-[0-9a-f]{40,}-[A-Za-z0-9]{10,}"),
    ("aliyun_key", rb"LTAI[A-Za-z0-9]{12,}"),
    ("tencent_key", rb"AKID[A-Za-z0-9]{32,}"),
    ("vault_token", rb"hv[sbr]\.[\w-]{20,}"),
    ("terraform_token", rb"\.atlasv1\.[\w=-]{40,}"),
    ("digitalocean_token", rb"do[opr]_v1_[0-9a-f]{40,}"),
    ("databricks_token", rb"dapi[0-9a-f]{32}|dose[0-9a-f]{32}|dkea[0-9a-f]{32}"),
    ("fly_token", rb"FlyV1 [\w,+/=-]{20,}|fm[12][ar]?_[A-Za-z0-9+/=]{60,}"),
    ("heroku_key", rb"HRKU-[\w-]{30,}"),
    ("netlify_token", rb"nf[pcoub]_[A-Za-z0-9]{36,}"),
    ("supabase_key", rb"sb[pa]_[0-9a-f]{40}|sb_secret_[\w-]{20,}"),
    ("planetscale_token", rb"pscale_(?:tkn|pw|oauth)_[\w.=-]{30,}"),
    ("cloudflare_key", rb"v1\.0-[0-9a-f]{24}-[0-9a-f]{100,}"),
    ("grafana_token", rb"gl(?:c|sa)_[A-Za-z0-9+/=_]{30,}"),
    ("newrelic_key", rb"NR(?:AK|JS|II|AL|RA|BR|SP)-[A-Za-z0-9_-]{16,}"),
    ("sentry_token", rb"sntry[su]_[\w+/=-]{30,}"),
    ("dynatrace_token", rb"dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{40,}"),
    ("doppler_token", rb"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[\w-]+\.)?[A-Za-z0-9]{30,}"),
    ("linear_key", rb"lin_(?:api|oauth)_[A-Za-z0-9]{30,}"),
    ("notion_token", rb"ntn_[A-Za-z0-9]{40,}"),
    ("figma_token", rb"fig[du]r?_[\w-]{36,}"),
    ("postman_key", rb"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("sonar_token", rb"sq[upa]_[0-9a-f]{40}"),
    ("artifactory_key", rb"AKCp[A-Za-z0-9]{60,}|cmVmdGtuO[A-Za-z0-9]{50,}"),
    ("onepassword_token", rb"ops_eyJ[A-Za-z0-9+/=]{40,}|A3-[A-Z0-9]{6}-[A-Z0-9-]{26,}"),
    ("airtable_token", rb"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    ("mapbox_token", rb"sk\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    ("age_key", rb"(?i:age-secret-key-1[a-z0-9]{50,})"),
    (
        "password_hash",
        rb"\$(?:[156]|2[abxy]?|y|7|gy|sha1|md5|apr1)\$[A-Za-z0-9./$=]{20,}|\$argon2(?:id|i"
        rb"|d)\$[\w=,+/$-]{20,}"
        rb"|\{(?:S?SHA(?:256|384|512)?|SMD5|CRYPT)\}[A-Za-z0-9+/=$.]{12,}|\bpbkdf2_sha(?:1"
        rb"|256)\$[\w+/=$]{20,}"
        rb"|SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=:$]{20,}",
    ),
)
"""Secrets with a distinctive prefix, by kind."""

WORDS: Final[tuple[tuple[str, bytes], ...]] = (
    ("telegram_token", rb"(?:bot)?[0-9]{8,10}:AA[\w-]{30,}|bot[0-9]{6,12}:[\w-]{30,}"),
    ("discord_token", rb"[MNO][A-Za-z0-9_-]{22,27}\.[\w-]{6}\.[\w-]{27,40}"),
    ("nats_seed", rb"S[UAONCXP][A-Z2-7]{56}"),
    ("twilio_key", rb"SK[0-9a-f]{32}|AC[0-9a-f]{32}:[0-9a-f]{32}"),
    ("mailgun_key", rb"(?:key|pubkey)-[0-9a-f]{32}|[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}"),
    ("mailchimp_key", rb"[0-9a-f]{32}-us[0-9]{1,2}"),
    ("google_key", rb"1//0[\w-]{30,}"),
    ("square_token", rb"EAAA[A-Za-z0-9_-]{56,}"),
    ("facebook_token", rb"EAA[A-Za-z0-9]{80,}"),
    ("nuget_key", rb"oy2[a-z0-9]{43}"),
    ("crates_token", rb"cio[A-Za-z0-9]{32}"),
    ("replicate_token", rb"r8_[A-Za-z0-9]{30,}"),
    ("xai_key", rb"xai-[A-Za-z0-9]{60,}"),
    ("notion_token", rb"secret_[A-Za-z0-9]{43}"),
    ("azure_secret", rb"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),
    ("auth_code", rb"4/0A[\w-]{12,}"),
    ("wallet_key", rb"[xyz]prv[1-9A-HJ-NP-Za-km-z]{100,}"),
)
"""Secrets that are complete words, by kind."""

SK_KEY: Final = rb"sk-[A-Za-z0-9_-]{20,}"
"""API keys of several providers; without a digit this is a hyphenated phrase."""
