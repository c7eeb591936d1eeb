"""Log lines in languages whose programs often do not write UTF-8."""

import random
from typing import Final

CODECS: Final = {
    "gb18030": "gb18030",
    "shift_jis": "cp932",
    "euc-jp": "euc_jp",
    "big5": "cp950",
    "latin-1": "cp1252",
}
"""Codecs by the names of encodings that are detected."""

_JAPANESE: Final = (
    "接続に失敗しました",
    "ログイン失敗",
    "サーバーが起動しました",
    "注文を受け付けました: 銘柄=日経225先物",
    "タイムアウト",
    "証拠金が不足しています",
    "エラー",
    "板情報を更新しました",
    "認証エラー: パスワードが違います",
    "約定しました 数量=10",
    "切断",
    "ファイルが見つかりません",
    "処理を終了します",
    "再接続中",
)

BY_ENCODING: Final[dict[str, tuple[str, ...]]] = {
    "gb18030": (
        "CTP:不合法的登录",
        "CTP:还没有初始化",
        "CTP:不被支持的报单类型",
        "登录成功，交易日20260105",
        "CTP:资金不足",
        "前置机断开连接，原因：4097",
        "委托已提交 合约=rb2605 数量=10",
        "撤单失败",
        "CTP:无此权限",
        "用户名或密码错误",
        "行情订阅成功",
        "持仓查询超时",
        "风控：超过单笔最大下单量",
        "结算单已确认",
        "CTP:找不到合约",
        "心跳超时，重新连接",
    ),
    "shift_jis": _JAPANESE,
    "euc-jp": _JAPANESE,
    "big5": (
        "登入失敗",
        "連線逾時",
        "委託單已送出",
        "帳號或密碼錯誤",
        "伺服器啟動完成",
        "期貨保證金不足",
        "查詢庫存失敗",
        "憑證過期，請重新申請",
        "成交回報：台指期 1 口",
        "系統錯誤",
        "無法開啟設定檔",
        "行情連線中斷",
    ),
    "latin-1": (
        "Verbindung zum Server verloren: Zeitüberschreitung",
        "Größe überschritten",
        "für",
        "Ungültige Anmeldung",
        "connexion refusée",
        "échec de l’authentification",
        "Le fichier n'a pas été trouvé",
        "paramètre manquant",
        "température 45 °C",
        "12,50 €",
        "latence 5 µs",
        "señal no válida",
        "conexión cerrada",
        "användare saknas",
    ),
}
"""Messages by the encoding that their programs write."""

_FRAMES: Final = (
    "2026-01-05 09:15:02.117 [INFO] {}",
    "[20260105 09:15:02] <ERROR> {} (id={})",
    "09:15:02.117 | WARN | trader | {}",
    "2026/01/05 09:15:02 td.cpp:{} {}",
    "OnRspError: ErrorID={} ErrorMsg={}",
    "{}",
)


def log_lines(name: str, count: int, seed: int) -> list[str]:
    """Return lines as a program writes them that uses an encoding; a third of them is ASCII."""
    chance = random.Random(seed)
    lines = []
    for _ in range(count):
        message = chance.choice(BY_ENCODING[name]) if chance.random() < 0.7 else "heartbeat ok"
        frame = chance.choice(_FRAMES)
        number = str(chance.randrange(10_000))
        first = frame.endswith("{}") and frame.count("{}") == 2
        lines.append(frame.format(*((number, message) if first else (message, number))))
    return lines
