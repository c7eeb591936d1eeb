"""Frequent characters of languages, and how likely the characters of a text are in each of them.

A score is the negated natural logarithm of a character's share of ordinary text, in tenths: the sum over a
text is lowest for the encoding that explains it best. The lists have the most frequent characters of news and
of messages of programs; each stands for two thirds of a text or more.
"""

from functools import cache
from typing import Final

_SIMPLIFIED: Final = (
    "登录陆账户帐号密码错误失败成功连接断开超时服务器客端请求响应委托撤单报交持仓资金合约行情订阅易所期货"
    "结算柜台前置不法未初始化认证启动停止异常警告重试网络线程内存队列缓心跳回调买卖平涨跌昨今保手续费用名"
    "称限制系统文件配参数据库查询更新删除发送收消息字段校验权策略信指令股票价格量方向状态处理加载读取写入"
    "目路径版本协议口地址域会话牌签到过滤日志提示确一是人了在有大中国和为这上他个年来我以要出的生学说道民"
    "家子也下们于后就自之对得主长可天作分多你着部能市等业全里工公经都而高政面门进区事代那去小同北定产其军"
    "还然起种如现机体表力好外与当两实三么只山水关明从建又南西没此将员最东头者月间无安看见各城十相但已些正"
    "通想度第她院物性战由位点海意场武使次二治因立样身原问把被并利石老教万知级任江及省元美特世湖比气汉总展"
    "电科先声品设或义王社很四首共马形己儿司太基领直计别女少流命至米给打变果书清活几州华解决张导术府才放管"
    "师便走达族反再题色五京河条规式县白它改风光运受什组听布百济党论强做技黄神选记斯真却职界花类何眼兵传带"
    "空干农边集联古广完质阳难增历史专官每住商即步车林必死游举言皇土团考德叫近备研争非具李众感转笑革该英克"
    "士尔让拉思根造较际亲朝红型周亚深候则属积快图火千准究往极育装许半吃观鱼精办像帝八复影远群包整构料随划"
    "象容投势热值夫望源语"
)
"""Frequent characters of Chinese in simplified script."""

_TRADITIONAL: Final = (
    "登錄陸賬戶帳號密碼錯誤失敗成功連接斷開超時服務器客端請求響應委託撤單報交持倉資金合約行情訂閱易所期貨"
    "結算櫃檯前置不法未初始化認證動停止異常警告重試網絡線程內存隊列緩心跳回調買賣平漲跌昨今保手續費用名稱"
    "限制系統文件配參數據庫查詢更新刪除發送收消息字段校驗權策略信指令股票價格量方向狀態處理加載讀取寫入目"
    "路徑版本協議口地址域會話牌簽到過濾日誌提示確一是人了在有大中國和這上他個年來我以要出的生學說道民家子"
    "也下們於後就自之對得主長可天作分多你部能市等業全工公經都而高政面門進區事代那去小同北定產其軍還然起種"
    "如現機體表力好外與當兩實三麼只山水關明從建又南西沒此將員最東頭者月間無安看見各城十相但已些正通想度第"
    "她院物性戰由位點海意場武使次二治因立樣身原問把被並利石老教萬知級任江及省元美特世湖比氣漢總展電科先聲"
    "品設或義王社很四首共馬形己兒司太基領直計別女少流命至米給打變果書清活幾州華解決張導術府才放管師便走達"
    "族反再題色五京河條規式縣白它改風光運受什組聽布百濟黨論強做技黃神選記斯真卻職界花類何眼兵傳帶空幹農邊"
    "集聯古廣完質陽難增歷史專官每住商即步車林必死遊舉言皇土團考德叫近備研爭非具李感轉笑革該英克士爾讓拉思"
    "根造較際親朝紅型周亞深候則屬積快圖火千準究往極育裝許半喫觀魚精辦像帝八復影遠包整構料隨劃象容投勢熱值"
    "夫望源語鐵派速怎需片愛律紀支早況病境編越局推滿且覺雙居樂企引標織青率項飛球節察龍藥站施均輕低甚般擊曾"
)
"""The same in traditional script."""

_KANJI: Final = (
    "接続失敗成功設定読込書起動停止終了処理値例外警告注文約取消残高口座証拠金銘柄板幅制限時刻無効有登録削"
    "除更新要求応答切断再試行画面管者利用暗号鍵列字型存在権拒否許可待機中初期化完開始詳細項目入力出日一国"
    "会人年大十二本長三同政事自社見月分議後前民生連五発間対上部東党地合市業内相方四今回場員九選立手米学問"
    "代明実円関決子京全表戦経通最言氏現調体田当八六主題下首意法不来作性的治度務強気小七公持野協都和統以平"
    "総加山思家話世受区領多県進正安保改数記院女北午指心界支第産結百派点教報済府活原先共得解名交資予川向際"
    "査勝委軍反元重近千考判認海参売組知案道信策集件団別物側任引使所次水半品昨論計死官増係感特情投示変打男"
    "基私各島直両朝革価式確村提運挙果西勢減台広容必演電歳住争談能位置企真流格疑過局少放税検藤町常校料沢裁"
    "状工建語球営空職土与急送援供役構木割聞身費付施由説転食比難防補車優夫研収井何南石足違境神番規術護展態"
    "導備害配副算視条幹独究育席訪万着乗店述想線率病農州武声質念族象銀域助労早張映親額環験追審商葉義伝働形"
    "景落好退準賀訴辺造英被株頭技低毎復去姿味負閣移差衆個門写評課末守種"
)
"""Frequent Chinese characters of Japanese."""

_PUNCTUATION: Final = "，。、：；（）！？“”《》【】「」…％·"
_LATIN_SMALL: Final = "äöüßéèêëàâçñóíáúîïôùûåøæœãõò"
_LATIN_CAPITAL: Final = "ÄÖÜÉÈÊÀÂÇÑÓÍÁÚÎÅØÆÃÕ"
_LATIN_SIGNS: Final = "°µ§€£©®«»²³±“”„‘’‚–—…•·¿¡×ºª\xa0"
_LATIN_RARE: Final = "ÿþ¤¦¨¬¯¸"

COMMON, PUNCTUATION, LISTED, SECOND, RARE = 65, 46, 96, 126, 160
"""Scores of Chinese characters: frequent ones, punctuation, the others of the first and second level of a
standard, and all the rest."""

FOREIGN: Final = 120
"""Score of a character that another script uses."""

REPLACED: Final = 150
"""Score of bytes that an encoding does not have."""

KANA: Final = 43
"""Score of hiragana and katakana in Japanese; there are few of them, so that each is frequent."""

LATIN_DEFAULT: Final = 75
"""Score of a character of Western encodings that words do not have."""


@cache
def chinese(codec: str) -> dict[str, int]:
    """Return the scores of characters in Chinese.

    Args:
        codec: ``gb2312`` for simplified or ``cp950`` for traditional script.
    """
    if codec == "gb2312":
        scores = _rows(codec, range(0xA1, 0xAA), LISTED) | _rows(codec, range(0xD8, 0xF8), SECOND)
        scores |= _rows(codec, range(0xB0, 0xD8), LISTED) | dict.fromkeys(_SIMPLIFIED, COMMON)
    else:
        scores = _rows(codec, range(0xA1, 0xA4), LISTED) | _rows(codec, range(0xC9, 0xFA), SECOND)
        scores |= _rows(codec, range(0xA4, 0xC7), LISTED) | dict.fromkeys(_TRADITIONAL, COMMON)
    return scores | dict.fromkeys(_kana(), FOREIGN) | dict.fromkeys(_PUNCTUATION, PUNCTUATION)


@cache
def japanese() -> dict[str, int]:
    """Return the scores of characters in Japanese."""
    scores = _rows("euc_jp", range(0xA1, 0xA9), LISTED) | _rows("euc_jp", range(0xD0, 0xF5), SECOND)
    scores |= _rows("euc_jp", range(0xB0, 0xD0), LISTED) | dict.fromkeys(_KANJI, COMMON)
    half_width = map(chr, range(0xFF61, 0xFFA0))
    scores |= dict.fromkeys(half_width, KANA) | dict.fromkeys(_kana(), KANA)
    return scores | dict.fromkeys(_PUNCTUATION + "ー〜～", PUNCTUATION)


@cache
def western() -> dict[str, int]:
    """Return the scores of characters that are not ASCII in Western European languages."""
    scores = dict.fromkeys(map(chr, range(0x80, 0xA0)), FOREIGN)
    scores |= dict.fromkeys(map(chr, range(0xA0, 0x100)), LATIN_DEFAULT)
    scores |= (
        dict.fromkeys(_LATIN_RARE, 95) | dict.fromkeys(_LATIN_SIGNS, 55) | dict.fromkeys(_LATIN_CAPITAL, 52)
    )
    return scores | dict.fromkeys(_LATIN_SMALL, 38)


def _kana() -> str:
    return "".join(map(chr, (*range(0x3041, 0x3094), *range(0x30A1, 0x30F7))))


def _rows(codec: str, rows: range, score: int) -> dict[str, int]:
    """Return a score for each character of rows of a table with two bytes."""
    cells = (*range(0x40, 0x7F), *range(0xA1, 0xFF))
    texts = (bytes((row, cell)).decode(codec, "ignore") for row in rows for cell in cells)
    # Where the second byte is not one of this table, it is decoded as ASCII.
    return {text: score for text in texts if len(text) == 1 and not text.isascii()}
